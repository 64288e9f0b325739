//! Network namespaces and the sockets that must be born inside one. The only `unsafe` file.
//!
//! `setns` changes the calling thread, so it runs on a thread of its own that ends with the call
//! (0.05-0.1 ms): a pooled thread would carry the namespace into somebody else's work. A socket
//! stays in the namespace it was opened in and may be used from any thread afterwards.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use super::Error;
use crate::net::Place;

/// Folder of named namespaces, as `ip netns` and container runtimes use it.
pub const FOLDER: &str = "/var/run/netns";

fn failed(path: &str) -> impl Fn(io::Error) -> Error + '_ {
    move |source| Error::Namespace { path: path.into(), source }
}

/// Opens the file of a namespace; it keeps the namespace alive.
pub fn open(path: &str) -> Result<File, Error> {
    File::open(path).map_err(failed(path))
}

/// Runs `f` inside `place`; blocks until it is done.
pub fn enter<R: Send>(place: &Place, f: impl FnOnce() -> R + Send) -> Result<R, Error> {
    let path = match place {
        Place::Host => return Ok(f()),
        Place::Namespace(path) => path,
    };
    let file = open(path)?;
    on_thread(path, move || {
        setns(file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
        Ok(f())
    })
}

/// Runs `f` inside `place` without blocking the asynchronous runtime.
pub async fn within<R: Send + 'static>(
    place: Place,
    f: impl FnOnce() -> Result<R, Error> + Send + 'static,
) -> Result<R, Error> {
    let name = place.clone();
    match tokio::task::spawn_blocking(move || enter(&place, f)).await {
        Ok(result) => result?,
        Err(e) => Err(failed(&describe(&name))(io::Error::other(e))),
    }
}

fn describe(place: &Place) -> String {
    match place {
        Place::Host => "host".to_owned(),
        Place::Namespace(path) => path.to_string(),
    }
}

fn on_thread<R: Send>(path: &str, f: impl FnOnce() -> io::Result<R> + Send) -> Result<R, Error> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, f)
            .map_err(failed(path))?;
        match worker.join() {
            Ok(result) => result.map_err(failed(path)),
            Err(_) => Err(failed(path)(io::Error::other("the thread panicked"))),
        }
    })
}

/// Whether there is a file for the namespace.
pub fn exists(path: &str) -> bool {
    Path::new(path).symlink_metadata().is_ok()
}

/// Path of a named namespace.
pub fn named_path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

/// Makes the namespace `/var/run/netns/<name>`; an existing one is an error (EEXIST).
pub fn create_named(name: &str) -> Result<Place, Error> {
    let path = named_path(name);
    let text = path.to_string_lossy().into_owned();
    std::fs::create_dir_all(FOLDER).map_err(failed(&text))?;
    File::create_new(&path).map_err(failed(&text))?;
    let made = on_thread(&text, || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let own = "/proc/thread-self/ns/net";
        mount(Some(own), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    });
    if made.is_err() {
        // The empty file would look like a namespace; the first error is the one that matters.
        let _ = std::fs::remove_file(&path);
    }
    made.map(|()| Place::Namespace(text.into()))
}

/// Removes a named namespace; a missing one is fine. Links in it die with its last user.
pub fn delete_named(name: &str) -> Result<(), Error> {
    let path = named_path(name);
    let text = path.to_string_lossy().into_owned();
    match umount2(&path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(e) => return Err(failed(&text)(e.into())),
    }
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(&text)(e)),
        _ => Ok(()),
    }
}

/// A raw AF_PACKET socket on one link of the calling thread's namespace; frames begin with the
/// Ethernet header, see packet(7). `ethertype` in host order.
pub(super) fn packet_socket(link_index: u32, ethertype: u16) -> io::Result<socket2::Socket> {
    let protocol = ethertype.to_be();
    // SAFETY: plain system call on scalars.
    let fd = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::c_int::from(protocol),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` is a fresh descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = protocol;
    address.sll_ifindex = link_index as libc::c_int;
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket.into())
}

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
pub(super) struct EthtoolValue {
    pub command: u32,
    pub data: u32,
}

/// A socket for ioctls on links of the calling thread's namespace.
pub(super) fn control_socket() -> io::Result<socket2::Socket> {
    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)
}

/// SIOCETHTOOL with a command that takes or returns one number, in the namespace of `socket`.
/// The ioctl is as old as every kernel that OVN runs on; the netlink form needs 5.8.
pub(super) fn ethtool_value(
    socket: &socket2::Socket,
    link: &str,
    value: &mut EthtoolValue,
) -> io::Result<()> {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if link.is_empty() || link.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(link.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (value as *mut EthtoolValue).cast();
    // SAFETY: the kernel reads the ifreq and reads or writes one ethtool_value; both outlive the
    // call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Registers a netlink socket with the asynchronous runtime that the caller runs in.
pub(super) fn register(
    socket: netlink_sys::Socket,
) -> io::Result<tokio::io::unix::AsyncFd<netlink_sys::Socket>> {
    // SAFETY: `Socket` owns its descriptor, always returns the same one, and closes it on drop
    // only; the AsyncFd owns the socket.
    let registered = unsafe {
        tokio::io::unix::AsyncFd::register_with_interest(socket, tokio::io::Interest::READABLE)
    };
    registered.map_err(io::Error::from)
}
