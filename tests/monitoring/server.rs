//! A Prometheus of the test's own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use requiem_tests::{Failure, PATIENCE};
use requiem_xtask::process::Background;
use requiem_xtask::scratch::Scratch;
use requiem_xtask::{packages, ports, process};
use serde_json::{Value, json};

/// Runs until it is dropped.
pub(crate) struct Prometheus {
    address: SocketAddr,
    _running: Background,
    folder: Scratch,
}

impl Prometheus {
    /// Scrapes these every second, and evaluates the rules in `rules` as often.
    pub(crate) fn start(targets: &[(&str, SocketAddr)], rules: &Path) -> Result<Self, Failure> {
        let folder = Scratch::new("prometheus")?;
        let job = |(job, address): &(&str, SocketAddr)| json!({"job_name": job, "static_configs": [{"targets": [address.to_string()]}]});
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": targets.iter().map(job).collect::<Vec<_>>(),
        });
        // YAML may be written as JSON.
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string())?;
        let address = ports::loopback()?;
        let mut command = Command::new(packages::prometheus()?.server);
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={address}"));
        let running = process::spawn_logged(&mut command, &folder.path().join("log"))?;
        Ok(Self { address, _running: running, folder })
    }

    /// The `data` of an answer.
    pub(crate) fn get(&self, path: &str) -> Result<Value, Failure> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        // In HTTP/1.0 no answer comes in chunks.
        write!(stream, "GET /api/v1/{path} HTTP/1.0\r\nHost: prometheus\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let body = text.split_once("\r\n\r\n").ok_or("no body")?.1;
        let answer: Value = serde_json::from_str(body).map_err(|error| format!("{path}: {error}: {body}"))?;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].clone()),
            _ => Err(format!("{path}: {answer}").into()),
        }
    }

    /// Series and values that `query` has now. A quantile of nothing is NaN, which is no value.
    pub(crate) fn query(&self, query: &str) -> Result<Vec<(Value, f64)>, Failure> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.get(&format!("query?query={encoded}"))?;
        let rows = data["result"].as_array().ok_or_else(|| format!("{query} is no vector: {data}"))?;
        let row = |row: &Value| Some((row["metric"].clone(), row["value"][1].as_str()?.parse().ok()?));
        Ok(rows.iter().filter_map(row).filter(|(_, value): &(Value, f64)| !value.is_nan()).collect())
    }

    /// The one value of `query`.
    pub(crate) fn value(&self, query: &str) -> Result<Option<f64>, Failure> {
        Ok(self.query(query)?.first().map(|(_, value)| *value))
    }

    /// Waits until `query` has a value of at least `least`. Nobody tells when a scrape is in, so this asks.
    pub(crate) async fn reaches(&self, query: &str, least: f64) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let found = self.value(query);
            if found.as_ref().is_ok_and(|value| value.is_some_and(|value| value >= least)) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(format!(
                    "{query} is {found:?} and not {least}\n{}",
                    process::last_lines(&log, 20)
                )
                .into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
