//! Callbacks that come in pairs: a request is sent, smbd's threads work, and its end comes back through the event loop.
//!
//! The shim carries a ticket through the request and gives it back once: when the request has ended, or when smbd has dropped it.

use super::call::Call;
use super::content::{self, Written};
use super::waits;
use crate::hooks::{Capture, Change, Planned, Span};
use crate::{os, sys};
use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;

type Handle = *mut sys::vfs_handle_struct;
type Fsp = *mut sys::files_struct;

struct Pending {
    share: u64,
    work: Work,
}

enum Work {
    Write {
        written: Written,
        span: Span,
    },
    /// Of a file that was written, or of a share on which flushes wait.
    Flush {
        handle: Option<u64>,
    },
    /// A flush that has ended and stays open until what came before it is durable.
    Waiting {
        request: *mut sys::tevent_req,
    },
}

#[derive(Default)]
struct Tickets {
    last: u64,
    /// Few, and they end about in the order in which they began.
    open: Vec<(u64, Pending)>,
}

thread_local! {
    // Never dropped: smbd may free requests after this thread's other values are gone.
    static TICKETS: ManuallyDrop<RefCell<Tickets>> = ManuallyDrop::default();
}

/// For requests of no interest; the shim gives it back like any other.
const NO_TICKET: u64 = 0;

fn issue(pending: Pending) -> u64 {
    TICKETS.with(|tickets| {
        let mut tickets = tickets.borrow_mut();
        tickets.last += 1;
        let ticket = tickets.last;
        tickets.open.push((ticket, pending));
        ticket
    })
}

fn redeem(ticket: u64) -> Option<Pending> {
    TICKETS.with(|tickets| {
        let mut tickets = tickets.borrow_mut();
        let at = tickets.open.iter().position(|(open, _)| *open == ticket)?;
        Some(tickets.open.remove(at).1)
    })
}

/// The flush of this ticket waits from now on.
pub(super) fn issue_waiting(ticket: u64, share: u64, request: *mut sys::tevent_req) {
    let work = Work::Waiting { request };
    TICKETS.with(|tickets| tickets.borrow_mut().open.push((ticket, Pending { share, work })));
}

/// The request of a flush that does not wait any more, `None` when smbd has dropped it.
pub(super) fn redeem_waiting(ticket: u64) -> Option<*mut sys::tevent_req> {
    match redeem(ticket)?.work {
        Work::Waiting { request } => Some(request),
        _ => None,
    }
}

/// The share of a ticket that is over.
pub(super) fn redeem_share(ticket: u64) -> Option<u64> {
    redeem(ticket).map(|pending| pending.share)
}

/// A flush has ended. Gives the share of one that is of interest.
pub(super) fn flushed(ticket: u64, ok: bool) -> Option<u64> {
    let Pending { share, work } = redeem(ticket)?;
    let call = Call::enter_key(share)?;
    if let Work::Flush { handle: Some(handle) } = work {
        call.note(|capture| capture.flushed(handle, ok));
    }
    Some(share)
}

/// Runs `next` as the start of a write.
///
/// # Safety
/// smbd's arguments, within the callback.
unsafe fn sending_write(
    handle: Handle,
    fsp: Fsp,
    planned: Planned<'_>,
    next: impl FnOnce(u64) -> *mut sys::tevent_req,
) -> *mut sys::tevent_req {
    // SAFETY: the handle is smbd's.
    let Some(call) = (unsafe { Call::enter(handle) }) else {
        return next(NO_TICKET);
    };
    let ticket = call.note(|capture| {
        capture.about_to_change(Change::Content);
        // SAFETY: the caller's promise.
        let written = unsafe { content::begin_write(capture, call.key(), handle, fsp, Some(planned)) };
        if let Some(going) = written.going {
            capture.started(going);
        }
        let span = planned.span;
        issue(Pending {
            share: call.key(),
            work: Work::Write { written, span },
        })
    });
    let request = next(ticket.unwrap_or(NO_TICKET));
    let errno = os::errno();
    drop(call);
    os::set_errno(errno);
    request
}

pub(super) unsafe extern "C" fn pwrite_send(
    handle: Handle,
    context: *mut sys::TALLOC_CTX,
    events: *mut sys::tevent_context,
    fsp: Fsp,
    data: *const c_void,
    n: usize,
    offset: i64,
) -> *mut sys::tevent_req {
    // SAFETY: smbd's arguments, passed on; the data stays until the request has ended.
    unsafe {
        let planned = Planned {
            span: Span::at(offset, n as u64),
            data: content::bytes(data, n),
        };
        let refuse = |errno| sys::vfsx_shim_pwrite_refused(handle, context, events, errno);
        let next = |ticket| sys::vfsx_shim_pwrite_send(handle, context, events, fsp, data, n, offset, ticket);
        content::write_asked(handle, fsp, refuse, || sending_write(handle, fsp, planned, next))
    }
}

pub(super) unsafe extern "C" fn pwrite_recv(
    request: *mut sys::tevent_req,
    state: *mut sys::vfs_aio_state,
) -> isize {
    // SAFETY: a request of `pwrite_send`.
    unsafe { sys::vfsx_shim_pwrite_recv(request, state) }
}

/// `length` 0 means the whole file with vfs_fruit's copyfile. How much a failed copy has written is not known.
pub(super) unsafe extern "C" fn offload_write_send(
    handle: Handle,
    context: *mut sys::TALLOC_CTX,
    events: *mut sys::tevent_context,
    fsctl: u32,
    token: *mut sys::DATA_BLOB,
    transfer_offset: i64,
    fsp: Fsp,
    offset: i64,
    length: i64,
) -> *mut sys::tevent_req {
    let span = match u64::try_from(length) {
        Ok(length) if length > 0 => Span::at(offset, length),
        _ => Span::Whole,
    };
    let planned = Planned { span, data: None };
    // SAFETY: smbd's arguments, passed on.
    unsafe {
        let refuse = |errno| sys::vfsx_shim_offload_write_refused(handle, context, events, errno);
        let next = |ticket| {
            sys::vfsx_shim_offload_write_send(
                handle,
                context,
                events,
                fsctl,
                token,
                transfer_offset,
                fsp,
                offset,
                length,
                ticket,
            )
        };
        content::write_asked(handle, fsp, refuse, || sending_write(handle, fsp, planned, next))
    }
}

pub(super) unsafe extern "C" fn offload_write_recv(
    handle: Handle,
    request: *mut sys::tevent_req,
    copied: *mut i64,
) -> sys::NTSTATUS {
    // SAFETY: a request of `offload_write_send`.
    unsafe { sys::vfsx_shim_offload_write_recv(handle, request, copied) }
}

/// A handle that has not written has nothing to report, but its flush is for what was done by name, too.
pub(super) unsafe extern "C" fn fsync_send(
    handle: Handle,
    context: *mut sys::TALLOC_CTX,
    events: *mut sys::tevent_context,
    fsp: Fsp,
) -> *mut sys::tevent_req {
    // SAFETY: smbd's arguments.
    let ticket = match unsafe { (Call::enter(handle), content::known_handle(handle, fsp)) } {
        (Some(call), handle) if handle.is_some() || waits::are_on(&call) => issue(Pending {
            share: call.key(),
            work: Work::Flush { handle },
        }),
        _ => NO_TICKET,
    };
    // SAFETY: smbd's arguments, passed on.
    unsafe { sys::vfsx_shim_fsync_send(handle, context, events, fsp, ticket) }
}

pub(super) unsafe extern "C" fn fsync_recv(
    request: *mut sys::tevent_req,
    state: *mut sys::vfs_aio_state,
) -> c_int {
    // SAFETY: a request of `fsync_send`.
    unsafe { sys::vfsx_shim_fsync_recv(request, state) }
}

/// Called by the shim: the request has ended. `ok`: it has done all that was asked for. A flush's end is `vfsx_rs_flushed`, unless it
/// could not be begun.
#[unsafe(no_mangle)]
extern "C" fn vfsx_rs_finished(ticket: u64, ok: bool) {
    settle(ticket, |capture, work| match work {
        Work::Write { written, span } => {
            if let Some(going) = written.going {
                capture.ended(going, span, ok);
            }
            written.touched(capture);
        }
        Work::Flush { .. } | Work::Waiting { .. } => {}
    });
}

/// Called by the shim: smbd has dropped the request, and a thread may still be working on it.
#[unsafe(no_mangle)]
extern "C" fn vfsx_rs_lost(ticket: u64) {
    settle(ticket, |capture, work| match work {
        Work::Write { written, span } => {
            if let Some(going) = written.going {
                capture.lost(going, span);
            }
            written.touched(capture);
        }
        Work::Flush { .. } => {}
        Work::Waiting { .. } => capture.forget_wait(ticket),
    });
}

fn settle(ticket: u64, report: impl FnOnce(&mut Capture, Work)) {
    let Some(Pending { share, work }) = redeem(ticket) else {
        return;
    };
    let errno = os::errno();
    if let Some(call) = Call::enter_key(share) {
        call.note(|capture| report(capture, work));
    }
    os::set_errno(errno);
}
