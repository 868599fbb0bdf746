/* What of Samba's API is macros, and therefore out of bindgen's reach. No logic here. */
#ifndef VFSX_SHIM_H
#define VFSX_SHIM_H

#include "includes.h"
#include "version.h"
#include "smbd/smbd.h"

/* Writes one line to smbd's log in the class `vfsx`. Before vfsx_shim_log_init the class is the general one. */
void vfsx_shim_log_init(void);
void vfsx_shim_log(int level, const char *text);

/* A place in smbd's event loop: one socket, one timer. Child of the handle. */
struct vfsx_watch;
struct vfsx_watch *vfsx_shim_watch_new(struct vfs_handle_struct *handle, uint64_t key);
/* Ends the watch of the socket, if any; must come before the socket is closed. */
void vfsx_shim_watch_no_socket(struct vfsx_watch *watch);
bool vfsx_shim_watch_socket(struct vfsx_watch *watch, int fd);
void vfsx_shim_watch_writable(struct vfsx_watch *watch, bool want);
bool vfsx_shim_watch_timer(struct vfsx_watch *watch, uint64_t microseconds);
void vfsx_shim_watch_free(struct vfsx_watch *watch);

/* Asynchronous pairs. `ticket` is given back once: by vfsx_rs_finished, or by vfsx_rs_lost when smbd drops the request. */
struct tevent_req *vfsx_shim_pwrite_send(struct vfs_handle_struct *handle, TALLOC_CTX *mem_ctx, struct tevent_context *ev,
	struct files_struct *fsp, const void *data, size_t n, off_t offset, uint64_t ticket);
ssize_t vfsx_shim_pwrite_recv(struct tevent_req *req, struct vfs_aio_state *state);
struct tevent_req *vfsx_shim_fsync_send(struct vfs_handle_struct *handle, TALLOC_CTX *mem_ctx, struct tevent_context *ev,
	struct files_struct *fsp, uint64_t ticket);
/* A flush that stays open has what it waited for, or nothing to wait for any more. smbd is called back later. */
void vfsx_shim_fsync_durable(struct tevent_req *req);
int vfsx_shim_fsync_recv(struct tevent_req *req, struct vfs_aio_state *state);
struct tevent_req *vfsx_shim_offload_write_send(struct vfs_handle_struct *handle, TALLOC_CTX *mem_ctx,
	struct tevent_context *ev, uint32_t fsctl, DATA_BLOB *token, off_t transfer_offset, struct files_struct *dest_fsp,
	off_t dest_off, off_t to_copy, uint64_t ticket);
NTSTATUS vfsx_shim_offload_write_recv(struct vfs_handle_struct *handle, struct tevent_req *req, off_t *copied);

/* Finished requests of the same pairs, for operations that are refused. */
struct tevent_req *vfsx_shim_pwrite_refused(struct vfs_handle_struct *handle, TALLOC_CTX *mem_ctx, struct tevent_context *ev,
	int error);
struct tevent_req *vfsx_shim_offload_write_refused(struct vfs_handle_struct *handle, TALLOC_CTX *mem_ctx,
	struct tevent_context *ev, int error);

/* Nobody hears this process's answers any more. */
bool vfsx_shim_client_is_lost(void);

/* Unix name of the user whose request is being served, NULL where smbd knows none. */
const char *vfsx_shim_user(const struct vfs_handle_struct *handle);

bool vfsx_shim_times_are_all_omitted(const struct smb_file_time *ft);

#endif
