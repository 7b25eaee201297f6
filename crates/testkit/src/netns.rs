//! Network namespaces that imitate pods: each with an address of its own, joined by a switch, cut off from the machine.
//!
//! The switch is a bridge in a namespace of its own, so that no interface and no route appears on the machine itself and
//! two labs can use the same addresses. Unix sockets are not bound to network namespaces: a server on a Unix socket can be
//! reached from every one of them.
//!
//! Needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN), `ip` and, for interception, `iptables`. Ask [`Availability::check`] first
//! and skip with its reason.

use std::fs::File;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use rustix::thread::LinkNameSpaceType;

/// Where `ip netns` keeps the handles of named namespaces.
const HANDLES: &str = "/run/netns";

/// Every namespace made here is called `pointsman-<process id>-<number>-<name>`.
const PREFIX: &str = "pointsman-";

/// Whether this machine lets this process make namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Availability {
    /// It does.
    Ready,
    /// It does not, for this reason.
    Missing(String),
}

impl Availability {
    /// Looks for what is needed, and makes and removes a namespace with an iptables rule to be sure. Looks only once per
    /// process.
    pub fn check() -> &'static Availability {
        static FOUND: OnceLock<Availability> = OnceLock::new();
        FOUND.get_or_init(|| match probe() {
            Ok(()) => Availability::Ready,
            Err(error) => Availability::Missing(format!("{error:#}")),
        })
    }

    /// Whether a test that needs namespaces can run. If it cannot, prints that `what` is skipped, and why.
    pub fn or_skip(what: &str) -> bool {
        match Availability::check() {
            Availability::Ready => true,
            Availability::Missing(reason) => {
                // Not by a macro: the test runner would swallow it, as the test passes.
                let _ = writeln!(io::stderr(), "skipped: {what}: {reason}");
                false
            }
        }
    }
}

fn probe() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("network namespaces need root");
    }
    run(Command::new("ip").arg("-V")).context("\"ip\" is missing (package iproute2)")?;
    run(Command::new("iptables").arg("--version")).context("\"iptables\" is missing (package iptables)")?;
    let lab = Lab::new(&["probe"]).context("this machine does not allow network namespaces")?;
    lab.namespace("probe").intercept(1_337).context("this machine does not allow interception by iptables")
}

/// A set of namespaces that reach each other. Dropping it removes them; processes inside should have ended by then.
#[derive(Debug)]
pub struct Lab {
    /// The switch first.
    namespaces: Vec<Namespace>,
}

impl Lab {
    /// Makes one namespace per name, with the addresses 198.18.77.1, .2, ... (RFC 2544's range for test networks) in a
    /// common /24, each with its loopback interface up.
    ///
    /// # Errors
    /// If a name is not made of letters, digits and dashes, there are more than 250, or a command fails. Nothing remains.
    pub fn new(names: &[&str]) -> Result<Lab> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        static SWEPT: OnceLock<()> = OnceLock::new();
        SWEPT.get_or_init(sweep);
        if let Some(name) = names.iter().find(|name| !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')) {
            bail!("\"{name}\" cannot be the name of a namespace: only letters, digits and dashes");
        }
        if names.len() > 250 {
            bail!("{} namespaces do not fit into one network of 250", names.len());
        }
        let own = format!("{PREFIX}{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        // The lab owns each namespace from the moment it exists, so that an error on the way removes them all.
        let mut lab = Lab { namespaces: Vec::new() };
        let switch = lab.add("switch", format!("{own}-.switch"), Ipv4Addr::UNSPECIFIED)?;
        switch.ip("link add br0 type bridge")?;
        switch.ip("link set br0 up")?;
        for (index, name) in (1..=250).zip(names) {
            let address = Ipv4Addr::new(198, 18, 77, index);
            let namespace = lab.add(name, format!("{own}-{name}"), address)?;
            namespace.ip("link set lo up")?;
            switch.ip(&format!("link add p{index} type veth peer name eth0 netns {}", namespace.handle))?;
            switch.ip(&format!("link set p{index} master br0 up"))?;
            namespace.ip(&format!("addr add {address}/24 dev eth0"))?;
            namespace.ip("link set eth0 up")?;
        }
        Ok(lab)
    }

    fn add(&mut self, name: &str, handle: String, address: Ipv4Addr) -> Result<Namespace> {
        run(Command::new("ip").args(["netns", "add", &handle]))?;
        let namespace = Namespace { name: name.to_owned(), handle, address };
        self.namespaces.push(namespace.clone());
        Ok(namespace)
    }

    /// The namespace with this name.
    ///
    /// # Panics
    /// If the lab was made without it.
    pub fn namespace(&self, name: &str) -> &Namespace {
        let found = self.namespaces[1..].iter().find(|namespace| namespace.name == name);
        found.unwrap_or_else(|| panic!("the lab has no namespace \"{name}\""))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in self.namespaces.iter().rev() {
            if let Err(error) = run(Command::new("ip").args(["netns", "delete", &namespace.handle])) {
                eprintln!("could not remove the namespace \"{}\": {error:#}", namespace.handle);
            }
        }
    }
}

/// Removes the namespaces of test processes that were killed before they could do so.
fn sweep() {
    let Ok(handles) = std::fs::read_dir(HANDLES) else { return };
    for handle in handles.flatten() {
        let handle = handle.file_name().to_string_lossy().into_owned();
        let owner = handle.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if let Some(owner) = owner
            && !Path::new(&format!("/proc/{owner}")).exists()
        {
            // Another process may be sweeping too; what counts is that it is gone.
            let _ = run(Command::new("ip").args(["netns", "delete", &handle]));
        }
    }
}

/// One namespace of a [`Lab`], which must outlive its use.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
    handle: String,
    address: Ipv4Addr,
}

impl Namespace {
    /// The name that the lab was made with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name under which the system knows it (`ip netns list`).
    pub fn handle(&self) -> &str {
        &self.handle
    }

    /// The address of its interface `eth0`.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A command that runs `program` in here; the process that is started becomes the program itself, so that its
    /// process id is the program's.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.handle]).arg(program);
        command
    }

    /// Moves the calling thread into this namespace for the rest of its life: sockets that it opens are in here.
    ///
    /// # Errors
    /// If the namespace is gone, or the process has no right to do so.
    pub fn enter(&self) -> io::Result<()> {
        let handle = File::open(PathBuf::from(HANDLES).join(&self.handle))?;
        Ok(rustix::thread::move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Redirects TCP traffic as a mesh's init container does: outgoing to port 15001, incoming to port 15006, except
    /// what the user `proxy_uid` sends, what goes to the loopback interface, and what comes to the ports 15020 and 15021.
    ///
    /// # Errors
    /// If iptables refuses.
    pub fn intercept(&self, proxy_uid: u32) -> Result<()> {
        let rules = [
            "-N POINTSMAN_OUT".to_owned(),
            "-A OUTPUT -p tcp -j POINTSMAN_OUT".to_owned(),
            format!("-A POINTSMAN_OUT -m owner --uid-owner {proxy_uid} -j RETURN"),
            "-A POINTSMAN_OUT -o lo -j RETURN".to_owned(),
            "-A POINTSMAN_OUT -p tcp -j REDIRECT --to-ports 15001".to_owned(),
            "-N POINTSMAN_IN".to_owned(),
            "-A PREROUTING -p tcp -j POINTSMAN_IN".to_owned(),
            "-A POINTSMAN_IN -p tcp --dport 15020:15021 -j RETURN".to_owned(),
            "-A POINTSMAN_IN -p tcp -j REDIRECT --to-ports 15006".to_owned(),
        ];
        for rule in rules {
            // -w waits for the lock that all iptables on the machine share.
            run(self.command("iptables").args(["-w", "-t", "nat"]).args(rule.split(' ')))?;
        }
        Ok(())
    }

    fn ip(&self, arguments: &str) -> Result<()> {
        run(Command::new("ip").args(["-n", &self.handle]).args(arguments.split(' ')))
    }
}

/// Runs a command to its end; an error says what it printed on standard error.
fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("could not run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::backend::Backend;
    use crate::load::{Load, Plan};

    fn exists(handle: &str) -> bool {
        Path::new(HANDLES).join(handle).exists()
    }

    #[test]
    fn namespaces_are_there_and_gone_again() {
        if !Availability::or_skip("namespaces are there and gone again") {
            return;
        }
        let lab = Lab::new(&["a", "b"]).unwrap();
        let handles: Vec<_> = lab.namespaces.iter().map(|namespace| namespace.handle.clone()).collect();
        assert!(handles.len() == 3 && handles.iter().all(|handle| exists(handle)), "{handles:?}");
        let output = lab.namespace("b").command("ip").args(["-o", "addr", "show", "eth0"]).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("198.18.77.2/24"), "{output:?}");
        drop(lab);
        assert!(!handles.iter().any(|handle| exists(handle)), "{handles:?}");
    }

    #[test]
    fn what_a_killed_process_left_behind_is_swept() {
        if !Availability::or_skip("what a killed process left behind is swept") {
            return;
        }
        // No process has this id: the largest that Linux gives is 4194304.
        let abandoned = format!("{PREFIX}4194305-0-a");
        run(Command::new("ip").args(["netns", "add", &abandoned])).unwrap();
        sweep();
        assert!(!exists(&abandoned));
    }

    #[tokio::test]
    async fn a_service_in_one_namespace_is_reached_from_another_and_not_from_here() {
        if !Availability::or_skip("a service in one namespace is reached from another") {
            return;
        }
        let lab = Lab::new(&["client", "server"]).unwrap();
        let server = lab.namespace("server");
        let address = SocketAddr::from((server.address(), 8_080));
        let _backend = Backend::start_in(Some(server), "v1", address).unwrap();
        let plan = Plan::get(address, "server", "/").timeout(Duration::from_secs(2));
        let load = Load::start_in(Some(lab.namespace("client")), plan.clone()).unwrap();
        let window = load.next(20, Duration::from_secs(10)).await.unwrap();
        assert_eq!(window.by_backend(), [("v1".to_owned(), 20)].into());
        // Whatever else may answer at that address, it is not the service in the namespace.
        let outside = Load::start(plan.timeout(Duration::from_millis(100))).unwrap();
        let window = outside.next(3, Duration::from_secs(10)).await.unwrap();
        assert!(window.by_backend().is_empty(), "{window}");
    }

    #[tokio::test]
    async fn intercepted_traffic_arrives_at_the_proxy_ports() {
        if !Availability::or_skip("intercepted traffic arrives at the proxy ports") {
            return;
        }
        let lab = Lab::new(&["client", "server"]).unwrap();
        let (client, server) = (lab.namespace("client"), lab.namespace("server"));
        client.intercept(1_337).unwrap();
        let proxy = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 15_001));
        let _proxy = Backend::start_in(Some(client), "proxy", proxy).unwrap();
        let load = Load::start_in(Some(client), Plan::get((server.address(), 80).into(), "server", "/")).unwrap();
        let window = load.next(5, Duration::from_secs(10)).await.unwrap();
        assert_eq!(window.by_backend(), [("proxy".to_owned(), 5)].into());
    }
}
