/*
 * Preloaded into a server that runs under a tool that counts: its clocks go SLOWER times slower, as much as its code does. So what it does by
 * time (timers, what is sent every few milliseconds) it does as often for each operation as without.
 */
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define CLOCKS 16
#define SECOND 1000000000L

int clock_gettime(clockid_t clock, struct timespec *time)
{
	static long first[CLOCKS];
	int result = (int)syscall(SYS_clock_gettime, clock, time);
	long now;

	if (result != 0 || clock < 0 || clock >= CLOCKS) {
		return result;
	}
	now = time->tv_sec * SECOND + time->tv_nsec;
	if (first[clock] == 0) {
		first[clock] = now;
	}
	now = first[clock] + (now - first[clock]) / SLOWER;
	time->tv_sec = now / SECOND;
	time->tv_nsec = now % SECOND;
	return 0;
}

int gettimeofday(struct timeval *time, void *zone)
{
	struct timespec now;

	(void)zone;
	if (clock_gettime(CLOCK_REALTIME, &now) != 0) {
		return -1;
	}
	time->tv_sec = now.tv_sec;
	time->tv_usec = now.tv_nsec / 1000;
	return 0;
}
