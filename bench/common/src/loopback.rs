//! What the network between processes of one machine can do, in the same run.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// One byte there and back over TCP between two threads, one after the other.
pub struct RoundTrips {
    pub per_second: f64,
    pub p50_us: u128,
    pub p99_us: u128,
}

/// Measures for a while. Blocks the thread.
///
/// # Errors
///
/// There is no loopback.
pub fn round_trips(duration: Duration) -> Result<RoundTrips> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut socket = TcpStream::connect(listener.local_addr()?)?;
    socket.set_nodelay(true)?;
    let echo = thread::spawn(move || -> Result<()> {
        let (mut other, _) = listener.accept()?;
        other.set_nodelay(true)?;
        let mut byte = [0];
        while other.read(&mut byte)? > 0 {
            other.write_all(&byte)?;
        }
        Ok(())
    });
    let start = Instant::now();
    let mut micros = Vec::new();
    while start.elapsed() < duration {
        let begin = Instant::now();
        socket.write_all(&[1])?;
        socket.read_exact(&mut [0])?;
        micros.push(begin.elapsed().as_micros());
    }
    let per_second = micros.len() as f64 / start.elapsed().as_secs_f64();
    drop(socket);
    echo.join().map_err(|_| anyhow!("the echo ended"))??;
    micros.sort_unstable();
    let at = |share: f64| micros[((micros.len() as f64 * share) as usize).min(micros.len() - 1)];
    Ok(RoundTrips { per_second, p50_us: at(0.5), p99_us: at(0.99) })
}
