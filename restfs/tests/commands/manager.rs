//! What the service manager is told: on a notify socket of the test's own.

use crate::place::*;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

#[test]
fn the_service_manager_hears_of_start_reload_end_and_that_all_is_well() {
    let place = Place::configured();
    let told = UnixDatagram::bind(place.path("notify")).unwrap();
    told.set_read_timeout(Some(PATIENCE)).unwrap();
    let serve = place.command(&["serve"]);
    // The process that is meant, as systemd says it.
    let child = Command::new("sh")
        .args(["-c", "WATCHDOG_PID=$$ exec \"$0\" \"$@\""])
        .arg(serve.get_program())
        .args(serve.get_args())
        .env("NOTIFY_SOCKET", place.path("notify"))
        .env("WATCHDOG_USEC", "400000")
        .spawn()
        .unwrap();
    let mut server = Serving {
        child,
        address: String::new(),
    };
    let hear = || {
        let mut buffer = [0; 4096];
        let length = told.recv(&mut buffer).expect("restfs says something");
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    let hear_news = || {
        std::iter::repeat_with(hear)
            .find(|said| said != "WATCHDOG=1")
            .unwrap()
    };
    assert_eq!(hear_news(), "READY=1");
    for _ in 0..3 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    kill_process(Pid::from_child(&server.child), Signal::HUP).unwrap();
    let reloading = hear_news();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(hear_news(), "READY=1");
    kill_process(Pid::from_child(&server.child), Signal::TERM).unwrap();
    assert_eq!(hear_news(), "STOPPING=1");
    assert_eq!(server.stop(), Some(0));
}
