/*
 * Preloaded into smbd where a test holds its writes up. While the file that VFSX_LAB_HOLD names is there, a write by one of
 * smbd's threads does not come to an end, as in a disk that hangs: it has its file, whatever becomes of the descriptor. A
 * process that ends does so when such writes are done: they may well be, between its last word to others and its end.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

typedef ssize_t write_call(int file, const void *data, size_t length, off_t at);
typedef void exit_call(int status);

static const useconds_t STEP = 2000;
static atomic_int held;

static int is_held(void)
{
	const char *file = getenv("VFSX_LAB_HOLD");

	return file != NULL && access(file, F_OK) == 0;
}

static ssize_t hold(write_call *next, int file, const void *data, size_t length, off_t at)
{
	ssize_t done;

	if (gettid() == getpid() || !is_held()) {
		return next(file, data, length, at);
	}
	atomic_fetch_add(&held, 1);
	file = dup(file);
	while (is_held()) {
		usleep(STEP);
	}
	done = next(file, data, length, at);
	close(file);
	atomic_fetch_sub(&held, 1);
	return done;
}

ssize_t pwrite(int file, const void *data, size_t length, off_t at)
{
	return hold((write_call *)dlsym(RTLD_NEXT, "pwrite"), file, data, length, at);
}

ssize_t pwrite64(int file, const void *data, size_t length, off64_t at)
{
	return hold((write_call *)dlsym(RTLD_NEXT, "pwrite64"), file, data, length, at);
}

void exit(int status)
{
	while (atomic_load(&held) > 0) {
		usleep(STEP);
	}
	((exit_call *)dlsym(RTLD_NEXT, "exit"))(status);
	__builtin_unreachable();
}
