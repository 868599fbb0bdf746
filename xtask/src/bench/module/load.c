/*
 * One client that does one kind of operation in a row, by libsmbclient: each call is one request or a few, and the next comes
 * after the answer.
 *
 *   load CONF PORT USER SHARE/DIR KIND COUNT SIZE SPAN     (the password is read from standard input)
 *
 * KIND: sequential  COUNT writes of SIZE bytes one behind the other
 *       random      COUNT writes of SIZE bytes at multiples of SIZE below SPAN
 *       files       COUNT files of SIZE bytes made in directories of 1,000
 *       touch       COUNT empty files
 *       renames     COUNT renames of the files that touch made
 * DIR is made when it is not there.
 * Prints the seconds that the operations took. Fails at the first error.
 */
#include <errno.h>
#include <fcntl.h>
#include <libsmbclient.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PER_DIRECTORY 1000
#define PAGE 4096

static const char *user;
static char password[256];
static char root[512];
static char *buffer;

static void die(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void authenticate(const char *server, const char *share, char *workgroup, int workgroup_size, char *name,
	int name_size, char *secret, int secret_size)
{
	(void)server, (void)share, (void)workgroup, (void)workgroup_size;
	snprintf(name, name_size, "%s", user);
	snprintf(secret, secret_size, "%s", password);
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Places: the same in every run. */
static uint64_t places = 0x9e3779b97f4a7c15;
/* Content: no two pages alike, in no two runs, so that nothing can be spared because it is known already. */
static uint64_t content;

static void name_of(char *to, size_t size, const char *kind, long number)
{
	snprintf(to, size, "%s/%ld/%s-%ld", root, number / PER_DIRECTORY, kind, number);
}

static int create(const char *name)
{
	int fd = smbc_open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
	if (fd < 0) {
		die(name);
	}
	return fd;
}

static void fill(int fd, size_t size)
{
	for (size_t i = 0; i + sizeof(content) <= size; i += PAGE) {
		next_random(&content);
		memcpy(buffer + i, &content, sizeof(content));
	}
	if (smbc_write(fd, buffer, size) != (ssize_t)size) {
		die("write");
	}
}

static void make_directories(long count)
{
	for (long i = 0; i <= (count - 1) / PER_DIRECTORY; i++) {
		char name[640];
		snprintf(name, sizeof(name), "%s/%ld", root, i);
		if (smbc_mkdir(name, 0755) != 0 && errno != EEXIST) {
			die(name);
		}
	}
}

static void make_file(const char *kind, long number, size_t size)
{
	char name[640];
	name_of(name, sizeof(name), kind, number);
	int fd = create(name);
	if (size > 0) {
		fill(fd, size);
	}
	if (smbc_close(fd) != 0) {
		die(name);
	}
}

static double writes(long count, size_t size, uint64_t span)
{
	char name[640];
	snprintf(name, sizeof(name), "%s/file", root);
	int fd = create(name);
	if (span > 0 && smbc_ftruncate(fd, span) != 0) {
		die("set size");
	}
	double start = now();
	for (long i = 0; i < count; i++) {
		if (span > 0) {
			off_t offset = next_random(&places) % (span / size) * size;
			if (smbc_lseek(fd, offset, SEEK_SET) != offset) {
				die("seek");
			}
		}
		fill(fd, size);
	}
	if (smbc_close(fd) != 0) {
		die("close");
	}
	return now() - start;
}

static double files(const char *kind, long count, size_t size)
{
	make_directories(count);
	double start = now();
	for (long i = 0; i < count; i++) {
		make_file(kind, i, size);
	}
	return now() - start;
}

static double renames(long count)
{
	double start = now();
	for (long i = 0; i < count; i++) {
		char old[640], new[640];
		name_of(old, sizeof(old), "old", i);
		name_of(new, sizeof(new), "new", i);
		if (smbc_rename(old, new) != 0) {
			die(old);
		}
	}
	return now() - start;
}

int main(int argc, char **argv)
{
	if (argc != 9) {
		fprintf(stderr, "usage: load CONF PORT USER SHARE/DIR KIND COUNT SIZE SPAN\n");
		return 2;
	}
	const char *kind = argv[5];
	long count = atol(argv[6]);
	size_t size = atol(argv[7]);
	uint64_t span = strtoull(argv[8], NULL, 10);
	user = argv[3];
	if (fgets(password, sizeof(password), stdin) == NULL) {
		die("password");
	}
	password[strcspn(password, "\n")] = 0;
	buffer = malloc(size + 1);
	if (buffer == NULL) {
		die("memory");
	}
	content = (uint64_t)time(NULL) << 32 ^ (uint64_t)getpid() << 8 ^ 1;
	for (size_t i = 0; i < size; i++) {
		buffer[i] = next_random(&content);
	}

	SMBCCTX *context = smbc_new_context();
	if (context == NULL) {
		die("context");
	}
	if (smbc_setConfiguration(context, argv[1]) != 0) {
		die(argv[1]);
	}
	smbc_setFunctionAuthData(context, authenticate);
	smbc_setOptionProtocols(context, "SMB3_11", "SMB3_11");
	smbc_setPort(context, atoi(argv[2]));
	if (smbc_init_context(context) == NULL) {
		die("context");
	}
	smbc_set_context(context);
	snprintf(root, sizeof(root), "smb://127.0.0.1/%s", argv[4]);
	if (smbc_mkdir(root, 0755) != 0 && errno != EEXIST) {
		die(root);
	}

	double seconds;
	if (strcmp(kind, "sequential") == 0) {
		seconds = writes(count, size, 0);
	} else if (strcmp(kind, "random") == 0) {
		seconds = writes(count, size, span);
	} else if (strcmp(kind, "files") == 0) {
		seconds = files("file", count, size);
	} else if (strcmp(kind, "touch") == 0) {
		seconds = files("old", count, 0);
	} else if (strcmp(kind, "renames") == 0) {
		seconds = renames(count);
	} else {
		fprintf(stderr, "no load %s\n", kind);
		return 2;
	}
	printf("%.6f\n", seconds);
	return 0;
}
