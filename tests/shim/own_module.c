/*
 * Preloaded into the lab's smbd: the module under test stands in for the one in Samba's module directory, which belongs
 * to the machine. Samba takes no path in `vfs objects`, and a VFS module in `preload modules` keeps smbd from
 * registering its own default one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

void *dlopen(const char *path, int flags)
{
	static const char name[] = "/vfs/vfsx.so";
	void *(*next)(const char *, int) = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");
	const char *own = getenv("VFSX_LAB_MODULE");

	if (path != NULL && own != NULL) {
		size_t length = strlen(path);
		if (length >= sizeof(name) - 1 && strcmp(path + length - (sizeof(name) - 1), name) == 0) {
			path = own;
		}
	}
	return next(path, flags);
}
