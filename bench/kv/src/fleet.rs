//! Connections to servers, driven by one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::wire::{Event, Wire};

/// What is read from a socket at once, and so how many answers are handled before new requests go
/// out in one write.
const READ_BYTES: usize = 256 << 10;
/// Sockets that are looked at in one turn.
const EVENTS_MAX: usize = 1024;

/// Longest wait for a socket that callers should ask for, so that the end of a run is seen.
pub(crate) const TURN_MAX: Duration = Duration::from_millis(20);

struct Link<W> {
    socket: TcpStream,
    wire: W,
    /// Whether it stands in the list of those with something to write.
    is_dirty: bool,
    /// Whether the socket takes no more for now.
    is_blocked: bool,
}

/// All connections of a run.
pub(crate) struct Fleet<W> {
    epoll: OwnedFd,
    links: Vec<Link<W>>,
    dirty: Vec<usize>,
    buffer: Vec<u8>,
    events: Vec<epoll::Event>,
}

impl<W: Wire> Fleet<W> {
    /// Connects to one address after the other.
    ///
    /// # Errors
    ///
    /// A server cannot be reached.
    pub(crate) fn connect<'a>(addresses: impl Iterator<Item = &'a str>) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut links = Vec::new();
        for address in addresses {
            let socket = TcpStream::connect(address)
                .with_context(|| format!("{address} cannot be reached"))?;
            socket.set_nodelay(true)?;
            socket.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(links.len() as u64);
            epoll::add(&epoll, &socket, data, epoll::EventFlags::IN)?;
            let wire = W::new(address);
            links.push(Link { socket, wire, is_dirty: true, is_blocked: false });
        }
        let dirty = (0..links.len()).collect();
        let events = Vec::with_capacity(EVENTS_MAX);
        Ok(Self { epoll, links, dirty, buffer: vec![0; READ_BYTES], events })
    }

    pub(crate) fn len(&self) -> usize {
        self.links.len()
    }

    /// A connection to send on; what is sent goes out with the next [`Self::turn`].
    pub(crate) fn wire(&mut self, link: usize) -> &mut W {
        self.mark(link);
        &mut self.links[link].wire
    }

    fn mark(&mut self, at: usize) {
        let link = &mut self.links[at];
        if !link.is_dirty && !link.is_blocked {
            link.is_dirty = true;
            self.dirty.push(at);
        }
    }

    /// Writes what is to be written, waits at most so long for anything to come, and hands it out:
    /// which connection, whose call, what.
    ///
    /// # Errors
    ///
    /// A server closed a connection or broke the protocol.
    pub(crate) fn turn(
        &mut self,
        wait_max: Duration,
        on: &mut impl FnMut(usize, u32, Event<'_>),
    ) -> Result<()> {
        while let Some(at) = self.dirty.pop() {
            self.links[at].is_dirty = false;
            self.write(at)?;
        }
        let timeout = Timespec {
            tv_sec: wait_max.as_secs() as i64,
            tv_nsec: i64::from(wait_max.subsec_nanos()),
        };
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let spare = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.epoll, spare, Some(&timeout)) {
            // A program that is stopped and continued has waited enough.
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("sockets cannot be waited for"),
        }
        for epoll::Event { data, flags } in events.iter().copied() {
            let at = data.u64() as usize;
            if flags.contains(epoll::EventFlags::OUT) {
                self.links[at].is_blocked = false;
                self.interest(at, epoll::EventFlags::IN)?;
                self.mark(at);
            }
            if flags
                .intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
            {
                self.read(at, on)?;
            }
        }
        self.events = events;
        Ok(())
    }

    fn read(&mut self, at: usize, on: &mut impl FnMut(usize, u32, Event<'_>)) -> Result<()> {
        let link = &mut self.links[at];
        match link.socket.read(&mut self.buffer) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(length) => {
                let bytes = &self.buffer[..length];
                link.wire.receive(bytes, &mut |token, event| on(at, token, event))?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("a connection broke"),
        }
        if !link.wire.out().is_empty() {
            self.mark(at);
        }
        Ok(())
    }

    fn write(&mut self, at: usize) -> Result<()> {
        let Link { socket, wire, is_blocked, .. } = &mut self.links[at];
        let out = wire.out();
        let mut written = 0;
        while written < out.len() {
            match socket.write(&out[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    *is_blocked = true;
                    break;
                }
                Err(error) => return Err(error).context("a connection broke"),
            }
        }
        out.drain(..written);
        if *is_blocked {
            self.interest(at, epoll::EventFlags::IN | epoll::EventFlags::OUT)?;
        }
        Ok(())
    }

    fn interest(&self, at: usize, flags: epoll::EventFlags) -> Result<()> {
        let data = epoll::EventData::new_u64(at as u64);
        Ok(epoll::modify(&self.epoll, &self.links[at].socket, data, flags)?)
    }
}
