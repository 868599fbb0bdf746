#include "shim.h"
#include "lib/global_contexts.h"
#include "smbd/globals.h"
#include "librpc/gen_ndr/auth.h"
#include "lib/util/tevent_unix.h"
#include "lib/util/tevent_ntstatus.h"

/* The keeper's thread keeps root's rights while smbd's main thread takes those of a client: without this, a change would be one of all
 * threads, and wait for one that hangs. */
#if !defined(HAVE_LINUX_THREAD_CREDENTIALS) && !defined(USE_LINUX_THREAD_CREDENTIALS)
#error "this Samba does not give each thread credentials of its own"
#endif

/* Defined in Rust. */
extern void vfsx_rs_socket_ready(uint64_t key, bool readable, bool writable);
extern void vfsx_rs_timer(uint64_t key);
extern void vfsx_rs_finished(uint64_t ticket, bool ok);
extern void vfsx_rs_lost(uint64_t ticket);
extern uint64_t vfsx_rs_flushed(uint64_t ticket, bool ok, bool alone, struct tevent_req *req);
extern void vfsx_rs_waited(uint64_t ticket);

static int vfsx_debug_class = DBGC_VFS;
#undef DBGC_CLASS
#define DBGC_CLASS vfsx_debug_class

void vfsx_shim_log_init(void)
{
	int class = debug_add_class("vfsx");
	if (class != -1) {
		vfsx_debug_class = class;
	}
}

void vfsx_shim_log(int level, const char *text)
{
	DEBUG(level, ("vfsx: %s\n", text));
}

bool vfsx_shim_times_are_all_omitted(const struct smb_file_time *ft)
{
	return is_omit_timespec(&ft->mtime) && is_omit_timespec(&ft->atime) && is_omit_timespec(&ft->create_time);
}

bool vfsx_shim_client_is_lost(void)
{
	return global_smbXsrv_client != NULL && smbXsrv_client_valid_connections(global_smbXsrv_client) == 0;
}

const char *vfsx_shim_user(const struct vfs_handle_struct *handle)
{
	const struct auth_session_info *session = handle->conn->session_info;

	if (session == NULL || session->unix_info == NULL) {
		return NULL;
	}
	return session->unix_info->unix_name;
}

/* Event loop */

struct vfsx_watch {
	uint64_t key;
	struct tevent_fd *socket;
	struct tevent_timer *timer;
};

struct vfsx_watch *vfsx_shim_watch_new(struct vfs_handle_struct *handle, uint64_t key)
{
	struct vfsx_watch *watch = talloc_zero(handle, struct vfsx_watch);
	if (watch != NULL) {
		watch->key = key;
	}
	return watch;
}

static void vfsx_socket_handler(struct tevent_context *ev, struct tevent_fd *fde, uint16_t flags, void *data)
{
	struct vfsx_watch *watch = talloc_get_type_abort(data, struct vfsx_watch);
	vfsx_rs_socket_ready(watch->key, flags & TEVENT_FD_READ, flags & TEVENT_FD_WRITE);
}

void vfsx_shim_watch_no_socket(struct vfsx_watch *watch)
{
	TALLOC_FREE(watch->socket);
}

bool vfsx_shim_watch_socket(struct vfsx_watch *watch, int fd)
{
	TALLOC_FREE(watch->socket);
	watch->socket = tevent_add_fd(global_event_context(), watch, fd, TEVENT_FD_READ, vfsx_socket_handler, watch);
	return watch->socket != NULL;
}

void vfsx_shim_watch_writable(struct vfsx_watch *watch, bool want)
{
	if (watch->socket == NULL) {
		return;
	}
	if (want) {
		TEVENT_FD_WRITEABLE(watch->socket);
	} else {
		TEVENT_FD_NOT_WRITEABLE(watch->socket);
	}
}

static void vfsx_timer_handler(struct tevent_context *ev, struct tevent_timer *te, struct timeval now, void *data)
{
	struct vfsx_watch *watch = talloc_get_type_abort(data, struct vfsx_watch);
	TALLOC_FREE(watch->timer);
	vfsx_rs_timer(watch->key);
}

bool vfsx_shim_watch_timer(struct vfsx_watch *watch, uint64_t microseconds)
{
	struct timeval at = timeval_current_ofs(microseconds / 1000000, microseconds % 1000000);
	TALLOC_FREE(watch->timer);
	watch->timer = tevent_add_timer(global_event_context(), watch, at, vfsx_timer_handler, watch);
	return watch->timer != NULL;
}

void vfsx_shim_watch_free(struct vfsx_watch *watch)
{
	talloc_free(watch);
}

/* Asynchronous pairs */

struct vfsx_async {
	uint64_t ticket;
	struct vfs_handle_struct *handle;
	struct tevent_context *ev;
	struct tevent_timer *limit;
	bool reported;
	int ret;
	off_t copied;
	struct vfs_aio_state aio;
};

static void vfsx_report(struct vfsx_async *state, bool ok)
{
	if (!state->reported) {
		state->reported = true;
		vfsx_rs_finished(state->ticket, ok);
	}
}

/* smbd frees a request that still runs in a thread when the client's last connection is gone. */
static int vfsx_async_destructor(struct vfsx_async *state)
{
	if (!state->reported) {
		state->reported = true;
		vfsx_rs_lost(state->ticket);
	}
	return 0;
}

static struct tevent_req *vfsx_async_create(TALLOC_CTX *mem_ctx, struct vfs_handle_struct *handle, uint64_t ticket,
	struct vfsx_async **pstate)
{
	struct tevent_req *req = tevent_req_create(mem_ctx, pstate, struct vfsx_async);
	if (req == NULL) {
		vfsx_rs_finished(ticket, false);
		return NULL;
	}
	(*pstate)->ticket = ticket;
	(*pstate)->handle = handle;
	talloc_set_destructor(*pstate, vfsx_async_destructor);
	return req;
}

/* Common end of the send functions: `subreq` is what the next module gave. */
static struct tevent_req *vfsx_async_follow(struct tevent_req *req, struct vfsx_async *state, struct tevent_context *ev,
	struct tevent_req *subreq, tevent_req_fn done)
{
	if (tevent_req_nomem(subreq, req)) {
		vfsx_report(state, false);
		return tevent_req_post(req, ev);
	}
	tevent_req_set_callback(subreq, done, req);
	return req;
}

/* Writes: the most frequent of all. So there is no request of our own around that of the next module, nor one of SMB_VFS_NEXT_PWRITE_SEND,
 * but a note beside it. */

struct vfsx_write {
	struct vfsx_write *prev, *next;
	struct tevent_req *req;
	/* Of the module that has made the request. */
	ssize_t (*recv)(struct tevent_req *req, struct vfs_aio_state *aio);
	uint64_t ticket;
	/* Bytes that the write is asked for. */
	size_t asked;
};

/* Under way, the oldest first: few, and they end about in that order. */
static struct vfsx_write *vfsx_writes;

static void vfsx_write_end(struct vfsx_write *write)
{
	DLIST_REMOVE(vfsx_writes, write);
	talloc_set_destructor(write, NULL);
}

/* smbd frees a request that still runs in a thread when the client's last connection is gone. */
static int vfsx_write_destructor(struct vfsx_write *write)
{
	vfsx_write_end(write);
	vfsx_rs_lost(write->ticket);
	return 0;
}

struct tevent_req *vfsx_shim_pwrite_send(struct vfs_handle_struct *handle, TALLOC_CTX *mem_ctx, struct tevent_context *ev,
	struct files_struct *fsp, const void *data, size_t n, off_t offset, uint64_t ticket)
{
	struct vfs_handle_struct *next = handle->next;
	struct vfsx_write *write = talloc(mem_ctx, struct vfsx_write);
	struct tevent_req *req = NULL;

	/* The default module has it at the latest. */
	while (next != NULL && next->fns->pwrite_send_fn == NULL) {
		next = next->next;
	}
	if (write != NULL && next != NULL) {
		req = next->fns->pwrite_send_fn(next, mem_ctx, ev, fsp, data, n, offset);
	}
	if (req == NULL) {
		TALLOC_FREE(write);
		vfsx_rs_finished(ticket, false);
		return NULL;
	}
	*write = (struct vfsx_write){ .req = req, .recv = next->fns->pwrite_recv_fn, .ticket = ticket, .asked = n };
	DLIST_ADD_END(vfsx_writes, write);
	/* Goes with the request, however that ends. */
	talloc_steal(req, write);
	talloc_set_destructor(write, vfsx_write_destructor);
	return req;
}

ssize_t vfsx_shim_pwrite_recv(struct tevent_req *req, struct vfs_aio_state *aio)
{
	struct vfsx_write *write = vfsx_writes;
	ssize_t ret = -1;

	while (write != NULL && write->req != req) {
		write = write->next;
	}
	if (write == NULL) {
		/* It was refused: a request of ours, and an error. */
		tevent_req_is_unix_error(req, &aio->error);
		tevent_req_received(req);
		return -1;
	}
	ret = write->recv(req, aio);
	vfsx_write_end(write);
	vfsx_rs_finished(write->ticket, ret >= 0 && (size_t)ret == write->asked);
	return ret;
}

static void vfsx_fsync_end(struct tevent_req *req)
{
	struct vfsx_async *state = tevent_req_data(req, struct vfsx_async);

	state->reported = true;
	TALLOC_FREE(state->limit);
	tevent_req_done(req);
}

static void vfsx_fsync_limit(struct tevent_context *ev, struct tevent_timer *te, struct timeval now, void *data)
{
	struct tevent_req *req = talloc_get_type_abort(data, struct tevent_req);
	struct vfsx_async *state = tevent_req_data(req, struct vfsx_async);

	vfsx_rs_waited(state->ticket);
	vfsx_fsync_end(req);
}

static void vfsx_fsync_done(struct tevent_req *subreq)
{
	struct tevent_req *req = tevent_req_callback_data(subreq, struct tevent_req);
	struct vfsx_async *state = tevent_req_data(req, struct vfsx_async);
	uint64_t microseconds;

	state->ret = SMB_VFS_FSYNC_RECV(subreq, &state->aio);
	TALLOC_FREE(subreq);
	/* smbd waits for some flushes in an event loop of their own, which sees none of our events. */
	microseconds = vfsx_rs_flushed(state->ticket, state->ret == 0, state->ev != global_event_context(), req);
	if (microseconds == 0) {
		vfsx_fsync_end(req);
		return;
	}
	/* Who ends it does not want to be called back from there. */
	tevent_req_defer_callback(req, state->ev);
	state->limit = tevent_add_timer(state->ev, state,
		timeval_current_ofs(microseconds / 1000000, microseconds % 1000000), vfsx_fsync_limit, req);
	if (state->limit == NULL) {
		vfsx_rs_waited(state->ticket);
		vfsx_fsync_end(req);
	}
}

void vfsx_shim_fsync_durable(struct tevent_req *req)
{
	vfsx_fsync_end(req);
}

struct tevent_req *vfsx_shim_fsync_send(struct vfs_handle_struct *handle, TALLOC_CTX *mem_ctx, struct tevent_context *ev,
	struct files_struct *fsp, uint64_t ticket)
{
	struct vfsx_async *state = NULL;
	struct tevent_req *req = vfsx_async_create(mem_ctx, handle, ticket, &state);
	if (req == NULL) {
		return NULL;
	}
	state->ev = ev;
	return vfsx_async_follow(req, state, ev, SMB_VFS_NEXT_FSYNC_SEND(state, ev, handle, fsp), vfsx_fsync_done);
}

int vfsx_shim_fsync_recv(struct tevent_req *req, struct vfs_aio_state *aio)
{
	struct vfsx_async *state = tevent_req_data(req, struct vfsx_async);
	int ret;

	if (tevent_req_is_unix_error(req, &aio->error)) {
		tevent_req_received(req);
		return -1;
	}
	*aio = state->aio;
	ret = state->ret;
	tevent_req_received(req);
	return ret;
}

static void vfsx_offload_write_done(struct tevent_req *subreq)
{
	struct tevent_req *req = tevent_req_callback_data(subreq, struct tevent_req);
	struct vfsx_async *state = tevent_req_data(req, struct vfsx_async);
	NTSTATUS status = SMB_VFS_NEXT_OFFLOAD_WRITE_RECV(state->handle, subreq, &state->copied);

	TALLOC_FREE(subreq);
	vfsx_report(state, NT_STATUS_IS_OK(status));
	if (tevent_req_nterror(req, status)) {
		return;
	}
	tevent_req_done(req);
}

struct tevent_req *vfsx_shim_offload_write_send(struct vfs_handle_struct *handle, TALLOC_CTX *mem_ctx,
	struct tevent_context *ev, uint32_t fsctl, DATA_BLOB *token, off_t transfer_offset, struct files_struct *dest_fsp,
	off_t dest_off, off_t to_copy, uint64_t ticket)
{
	struct vfsx_async *state = NULL;
	struct tevent_req *req = vfsx_async_create(mem_ctx, handle, ticket, &state);
	if (req == NULL) {
		return NULL;
	}
	return vfsx_async_follow(req, state, ev,
		SMB_VFS_NEXT_OFFLOAD_WRITE_SEND(handle, state, ev, fsctl, token, transfer_offset, dest_fsp, dest_off, to_copy),
		vfsx_offload_write_done);
}

NTSTATUS vfsx_shim_offload_write_recv(struct vfs_handle_struct *handle, struct tevent_req *req, off_t *copied)
{
	struct vfsx_async *state = tevent_req_data(req, struct vfsx_async);
	NTSTATUS status;

	/* A failed copy may have written: the caller is told how much. */
	*copied = state->copied;
	if (tevent_req_is_nterror(req, &status)) {
		tevent_req_received(req);
		return status;
	}
	tevent_req_received(req);
	return NT_STATUS_OK;
}

/* Refused operations */

static struct tevent_req *vfsx_refused_create(TALLOC_CTX *mem_ctx, struct vfs_handle_struct *handle)
{
	struct vfsx_async *state = NULL;
	struct tevent_req *req = vfsx_async_create(mem_ctx, handle, 0, &state);
	if (req != NULL) {
		/* Nothing was started that could be reported. */
		state->reported = true;
	}
	return req;
}

struct tevent_req *vfsx_shim_pwrite_refused(struct vfs_handle_struct *handle, TALLOC_CTX *mem_ctx, struct tevent_context *ev,
	int error)
{
	struct tevent_req *req = vfsx_refused_create(mem_ctx, handle);
	if (req == NULL) {
		return NULL;
	}
	tevent_req_error(req, error);
	return tevent_req_post(req, ev);
}

struct tevent_req *vfsx_shim_offload_write_refused(struct vfs_handle_struct *handle, TALLOC_CTX *mem_ctx,
	struct tevent_context *ev, int error)
{
	struct tevent_req *req = vfsx_refused_create(mem_ctx, handle);
	if (req == NULL) {
		return NULL;
	}
	tevent_req_nterror(req, map_nt_error_from_unix_common(error));
	return tevent_req_post(req, ev);
}
