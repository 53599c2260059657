//! What dashboards and alerts see: a real Prometheus scrapes a real operator and a real executor that work, and every query of the
//! dashboard and of the alerts is asked there. Grafana and kube-state-metrics do not run here: the dashboard is read by Grafana's own
//! types, the configuration for kube-state-metrics by the fields that its documentation names, and by our definitions.

#![expect(clippy::expect_used, reason = "a test stops at the first surprise")]

mod alerts;
mod dashboard;
mod live;
mod server;
mod state;
