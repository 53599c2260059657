//! `await-serving`: returns when the executor beside this process serves. The kubelet runs it after the start of the executor's
//! container (`lifecycle.postStart`) and starts the workload's container when it has returned: then the runner lies in its place.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::args::AwaitArgs;

/// Between the start of a process and its first listener nobody can be told when that is there.
const PAUSE: Duration = Duration::from_millis(5);

/// Body of `requiem-executor await-serving`: 0 when it serves, 2 if it does not in time.
pub fn main(args: &AwaitArgs) -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    match serving(args.admin, Duration::from_secs(args.seconds.into())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let (admin, seconds) = (args.admin, args.seconds);
            tracing::error!(%error, "no executor serves at {admin} within {seconds} s; its log says why");
            ExitCode::from(2)
        }
    }
}

/// Waits until whoever listens at `admin` answers that it is alive, but not longer than `limit`.
///
/// An executor listens before it prepares store and runner, and answers when it has: so this is one call that waits.
///
/// # Errors
/// What the last try came to.
pub fn serving(admin: SocketAddr, limit: Duration) -> io::Result<()> {
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now()).max(PAUSE);
        match is_alive(admin, left) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= end => return Err(error),
            Err(_not_yet) => std::thread::sleep(PAUSE),
        }
    }
}

fn is_alive(admin: SocketAddr, limit: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&admin, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: executor\r\nConnection: close\r\n\r\n")?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    if status == *b"HTTP/1.1 200" {
        return Ok(());
    }
    Err(io::Error::other(format!("it answers {:?}", String::from_utf8_lossy(&status))))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answers(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _asked = stream.read(&mut [0; 512]);
                stream.write_all(answer).unwrap();
            }
        });
        address
    }

    #[test]
    fn only_one_that_says_it_is_alive_serves() {
        let short = Duration::from_millis(50);
        serving(answers(b"HTTP/1.1 200 OK\r\n\r\nok"), Duration::from_secs(20)).unwrap();
        let busy = serving(answers(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), short).unwrap_err();
        assert!(busy.to_string().contains("503"), "{busy}");
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(serving(nobody, short).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(serving(silent.local_addr().unwrap(), short).is_err());
    }
}
