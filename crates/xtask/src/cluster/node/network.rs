//! The network of a cluster with nodes: one segment of its own, in namespaces of its own.
//!
//! ```text
//!   host ── requiem7 ═ host ─┐
//!                            rq0 (bridge; API server at .1)      plane's namespace
//!   node-1: eth0 (.11) ══════┤
//!   node-2: eth0 (.12) ══════┘         pods of node 1: 10.244.29.0/24 behind .11
//! ```
//!
//! Addresses come from 198.18.0.0/16, set aside for test networks (RFC 2544), so that no real one is hidden. The host forwards
//! nothing and gets no firewall rule: it has one interface and a route to each node's pods, which go with the namespaces.

use std::net::Ipv4Addr;

/// Cluster number `index` of this machine; of two clusters the numbers differ, and with them everything here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    index: u8,
}

/// Networks that a machine can have at once: four ranges of pods each.
pub const MOST: u8 = 63;
/// Addresses of services; the first is the API server's. The same in every cluster: it exists inside its namespaces only.
pub const SERVICES: &str = "10.96.0.0/16";
/// The API server's port.
pub const API_PORT: u16 = 6443;
/// The bridge that joins plane, nodes and host.
const BRIDGE: &str = "rq0";

impl Network {
    /// Network number `index`; none from [`MOST`] on.
    pub fn new(index: u8) -> Option<Self> {
        (index < MOST).then_some(Self { index })
    }

    /// Its number.
    pub const fn index(self) -> u8 {
        self.index
    }

    /// The host's interface. Making it claims the number: of two commands one is refused.
    pub fn host_link(self) -> String {
        format!("requiem{}", self.index)
    }

    /// The API server.
    pub const fn plane(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.index, 1)
    }

    /// Node `number`, from 1.
    pub const fn node(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.index, 10 + number)
    }

    /// The pods of node `number`.
    pub fn pods(self, number: u8) -> String {
        format!("10.244.{}.0/24", 4 * self.index + number)
    }

    /// All pods of the cluster.
    pub fn all_pods(self) -> String {
        format!("10.244.{}.0/22", 4 * self.index)
    }

    /// Cgroup of node `number`, below the root of every hierarchy.
    pub fn cgroup(self, number: u8) -> String {
        format!("requiem{}-node-{number}", self.index)
    }

    /// Lines for `ip` on the host: claim the number, with the other end in the namespace of process `plane`.
    pub fn claim(self, plane: u32) -> String {
        let link = self.host_link();
        format!(
            "link add {link} type veth peer name host netns {plane}\n\
             address add 198.18.{}.254/24 dev {link}\n\
             link set {link} up\n",
            self.index
        )
    }

    /// Lines for `ip` in the plane's namespace.
    pub fn join_host(self) -> String {
        format!(
            "link add {BRIDGE} type bridge\n\
             address add {}/24 dev {BRIDGE}\n\
             link set {BRIDGE} up\n\
             link set host master {BRIDGE}\n\
             link set host up\n",
            self.plane()
        )
    }

    /// Lines for `ip` in the plane's namespace: a cable to node `number`, whose namespace process `node` holds.
    pub fn join_node(self, number: u8, node: u32) -> String {
        let link = port(number);
        format!(
            "link add {link} type veth peer name eth0 netns {node}\n\
             link set {link} master {BRIDGE}\n\
             link set {link} up\n{}",
            self.route(number)
        )
    }

    /// Lines for `ip` in the namespace of node `number` of `nodes`.
    ///
    /// The default route leads nowhere, but without one a service address is refused before kube-proxy can translate it.
    pub fn set_up_node(self, number: u8, nodes: u8) -> String {
        let others = (1..=nodes).filter(|other| *other != number).map(|other| self.route(other));
        format!(
            "address add {}/24 dev eth0\nlink set eth0 up\n{}route add default via {}\n",
            self.node(number),
            others.collect::<String>(),
            self.plane()
        )
    }

    /// A line for `ip` wherever pods of node `number` shall be reached.
    pub fn route(self, number: u8) -> String {
        format!("route add {} via {}\n", self.pods(number), self.node(number))
    }
}

/// The plane's end of the cable to node `number`.
pub fn port(number: u8) -> String {
    format!("node{number}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_clusters_share_an_address_a_name_or_a_pod_range() {
        let networks = (0..=u8::MAX).filter_map(Network::new);
        let all: Vec<String> = networks
            .flat_map(|network| {
                let nodes = (1..=2).flat_map(move |number| {
                    [network.node(number).to_string(), network.pods(number), network.cgroup(number)]
                });
                [network.host_link(), network.plane().to_string()].into_iter().chain(nodes)
            })
            .collect();
        assert_eq!(all.len(), usize::from(MOST) * 8);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn names_of_interfaces_fit_into_the_kernels_fifteen_bytes() {
        let longest = Network::new(MOST - 1).unwrap().host_link();
        assert!(longest.len() <= 15, "{longest}");
    }

    #[test]
    fn a_node_knows_the_way_to_the_pods_of_the_other_and_not_to_its_own() {
        let network = Network::new(7).unwrap();
        let text = network.set_up_node(1, 2);
        assert!(text.contains("route add 10.244.30.0/24 via 198.18.7.12\n"), "{text}");
        assert!(!text.contains("10.244.29.0"), "its own pods are behind its bridge: {text}");
    }
}
