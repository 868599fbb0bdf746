//! Takes the place of vfsxd: acknowledges all events and prints each message as one line.
//!
//! `cargo run -p vfsx-proto --example listen -- SOCKET [--no-ack]`

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use vfsx_proto::{Decoder, PREAMBLE, ToDaemon, ToModule, Welcome, check_preamble, encode, preamble};

type AnyError = Box<dyn std::error::Error>;

fn main() -> Result<(), AnyError> {
    let mut arguments = std::env::args().skip(1);
    let socket = arguments.next().ok_or("usage: listen SOCKET [--no-ack]")?;
    let acknowledge = arguments.next().is_none();
    let _ = std::fs::remove_file(&socket);
    for connection in UnixListener::bind(&socket)?.incoming() {
        let connection = connection?;
        std::thread::spawn(move || match serve(connection, acknowledge) {
            Ok(()) => println!("end of connection"),
            Err(e) => println!("error: {e}"),
        });
    }
    Ok(())
}

fn serve(mut connection: UnixStream, acknowledge: bool) -> Result<(), AnyError> {
    connection.write_all(&preamble())?;
    let mut theirs = [0; PREAMBLE];
    connection.read_exact(&mut theirs)?;
    check_preamble(&theirs)?;
    let mut decoder = Decoder::default();
    let mut buffer = [0; 64 * 1024];
    loop {
        let got = connection.read(&mut buffer)?;
        if got == 0 {
            return Ok(());
        }
        decoder.push(buffer.get(..got).unwrap_or_default());
        while let Some(message) = decoder.next::<ToDaemon>()? {
            println!("{message:?}");
            if let Some(answer) = answer(&message, acknowledge) {
                let mut frame = Vec::new();
                encode(&answer, &mut frame)?;
                connection.write_all(&frame)?;
            }
        }
    }
}

fn answer(message: &ToDaemon, acknowledge: bool) -> Option<ToModule> {
    match message {
        ToDaemon::Hello(hello) => Some(ToModule::Welcome(Welcome {
            acknowledged: hello.spooled,
            memory: false,
        })),
        ToDaemon::Events(events) if acknowledge => events.last().map(|event| ToModule::Ack {
            sequence: event.sequence,
        }),
        ToDaemon::Await { sequence } if acknowledge => Some(ToModule::Committed { sequence: *sequence }),
        ToDaemon::Events(_)
        | ToDaemon::Sent { .. }
        | ToDaemon::Await { .. }
        | ToDaemon::Waits(_)
        | ToDaemon::AckNow => None,
    }
}
