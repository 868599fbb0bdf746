//! FLUSH and CLOSE that return when what the client has done is durable.
//!
//! A FLUSH is a request that stays open meanwhile, so the client's other requests go on. CLOSE has no such thing in smbd, and
//! neither has a FLUSH inside of a synchronous call: these block, up to the limit.

use super::call::Call;
use super::samba::File;
use super::{content, event_loop, pairs, shares};
use crate::hooks::Capture;
use crate::{os, sys};
use std::ffi::c_int;
use std::time::Duration;

type Handle = *mut sys::vfs_handle_struct;
type Fsp = *mut sys::files_struct;

pub(super) unsafe extern "C" fn close(handle: Handle, fsp: Fsp) -> c_int {
    // SAFETY: smbd's arguments.
    let (key, is_clients) = unsafe { ((*handle).data as u64, File::new(fsp).is_clients()) };
    // SAFETY: smbd's arguments, passed on.
    let result = unsafe { content::close(handle, fsp) };
    if is_clients && shares::any_waits() {
        let errno = os::errno();
        shares::with(key, |share| {
            // Of a lost client every open file is closed, and until that is done it cannot come back to them.
            // SAFETY: looks at smbd's state on its main thread.
            if share.capture.waits() && !unsafe { sys::vfsx_shim_client_is_lost() } {
                share.capture.wait_after_close();
                event_loop::follow(share);
            }
        });
        os::set_errno(errno);
    }
    result
}

/// Whether calls on this share wait at all.
pub(super) fn are_on(call: &Call) -> bool {
    call.note(|capture| capture.waits()).unwrap_or(false)
}

/// Ends requests whose waits have ended. smbd is not called: it sees them later, in its event loop.
pub(super) fn finish(capture: &mut Capture) {
    for ticket in capture.take_ended_waits() {
        if let Some(request) = pairs::redeem_waiting(ticket) {
            // SAFETY: smbd has not freed it, or `vfsx_rs_lost` had redeemed the ticket.
            unsafe { sys::vfsx_shim_fsync_durable(request) };
        }
    }
}

/// Called by the shim: a flush has ended. How many microseconds it stays open at most, unless `vfsx_shim_fsync_durable` comes
/// before; 0: not at all. `alone`: nothing else can go on meanwhile.
#[unsafe(no_mangle)]
extern "C" fn vfsx_rs_flushed(ticket: u64, ok: bool, alone: bool, request: *mut sys::tevent_req) -> u64 {
    let errno = os::errno();
    let limit = flushed(ticket, ok, alone, request);
    os::set_errno(errno);
    limit.map_or(0, |limit| {
        u64::try_from(limit.as_micros()).unwrap_or(u64::MAX).max(1)
    })
}

fn flushed(ticket: u64, ok: bool, alone: bool, request: *mut sys::tevent_req) -> Option<Duration> {
    let share = pairs::flushed(ticket, ok).filter(|_| ok)?;
    if alone {
        shares::with(share, |share| {
            share.capture.wait_here();
            event_loop::follow(share);
        });
        return None;
    }
    shares::with(share, |share| {
        let limit = share.capture.begin_wait(ticket);
        event_loop::follow(share);
        limit
    })
    .flatten()
    .inspect(|_| pairs::issue_waiting(ticket, share, request))
}

/// Called by the shim: a flush has stayed open up to the limit, and is ended by the shim itself.
#[unsafe(no_mangle)]
extern "C" fn vfsx_rs_waited(ticket: u64) {
    let errno = os::errno();
    if let Some(share) = pairs::redeem_share(ticket) {
        shares::with(share, |share| {
            share.capture.expire_wait(ticket);
            event_loop::follow(share);
        });
    }
    os::set_errno(errno);
}
