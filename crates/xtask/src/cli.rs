//! The command line: one variant per command, one function per variant.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cluster::{self, Name, Shape, node};
use crate::progress::{print, say};
use crate::{Error, Result, bench, demo, generate, images, test};

/// The one door to build, try and test Requiem.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// A real control plane (etcd, kube-apiserver), with or without nodes.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// From nothing to a verified proof, on this machine.
    Demo(demo::Options),
    /// Build the container images, without a daemon.
    Images(images::Options),
    /// Everything CI runs; ends with `N passed, N failed`.
    Test(test::Options),
    /// Write the generated files.
    Generate {
        /// Only compare; stale files are an error.
        #[arg(long)]
        check: bool,
    },
    /// Run one benchmark against its peer.
    Bench(bench::Options),
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Start it (builds the programs once) and say how to use it.
    Up {
        /// Its name.
        #[arg(default_value = "dev")]
        name: String,
        /// With so many real nodes (kubelet, containerd, network); needs root.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=node::MOST as i64))]
        nodes: u8,
        /// With one node.
        #[arg(long, conflicts_with = "nodes")]
        node: bool,
        /// Leave the executor pods' seccomp profile out of the nodes, to see what happens then.
        #[arg(long)]
        no_seccomp_profile: bool,
    },
    /// Stop it and remove everything of it.
    Down {
        /// Its name.
        #[arg(default_value = "dev")]
        name: String,
    },
    /// Give an image (an OCI archive) to every node.
    Load {
        /// The archive.
        archive: PathBuf,
        /// Name of the cluster.
        #[arg(default_value = "dev")]
        name: String,
    },
    /// List clusters, or look whether the cluster of a context answers.
    Status {
        /// A context of your own kubeconfig instead.
        #[arg(long)]
        context: Option<String>,
    },
    /// Stop all clusters and remove the built programs from the cache.
    Clean,
}

/// Parses the arguments of this process and does what they say.
pub fn run() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, Error::Told) {
                say(&format!("error: {error}"));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(command: Commands) -> Result<()> {
    match command {
        Commands::Cluster(command) => cluster_command(command),
        Commands::Demo(options) => demo::run(&options),
        Commands::Images(options) => images::run(&options),
        Commands::Test(options) => test::run(&options),
        Commands::Generate { check } => generate::run(check),
        Commands::Bench(options) => bench::run(&options),
    }
}

fn cluster_command(command: ClusterCommand) -> Result<()> {
    match command {
        ClusterCommand::Up { name, nodes, node, no_seccomp_profile } => {
            let nodes = if node { 1 } else { nodes };
            let shape = Shape { nodes, seccomp_profile: !no_seccomp_profile };
            let access = cluster::up(&Name::parse(&name)?, shape)?;
            print(&format!("export KUBECONFIG={}", access.kubeconfig.display()));
            print(&format!("alias kubectl={}", access.kubectl.display()));
            Ok(())
        }
        ClusterCommand::Down { name } => {
            let name = Name::parse(&name)?;
            let there = cluster::down(&name)?;
            say(&if there {
                format!("✓ cluster {name} is gone")
            } else {
                format!("· there is no cluster {name}")
            });
            Ok(())
        }
        ClusterCommand::Load { archive, name } => {
            cluster::nodes(&Name::parse(&name)?)?.iter().try_for_each(|node| {
                node.load_image(&archive)?;
                say(&format!("✓ {} has {}", node.name(), archive.display()));
                Ok(())
            })
        }
        ClusterCommand::Status { context: Some(context) } => {
            print(cluster::version(&context)?.trim_end());
            Ok(())
        }
        ClusterCommand::Status { context: None } => {
            for name in cluster::list()? {
                print(&cluster::status(&name)?);
            }
            Ok(())
        }
        ClusterCommand::Clean => cluster::clean(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::repository;

    /// Lines of `page` that a reader is to type.
    fn typed(page: &std::path::Path) -> Vec<String> {
        let text = std::fs::read_to_string(page).unwrap();
        let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
        let lines = blocks.flat_map(str::lines).filter_map(|line| line.split('#').next());
        lines.filter(|line| line.starts_with("cargo xtask ")).map(str::to_owned).collect()
    }

    #[test]
    fn every_command_on_the_pages_is_understood() {
        let pages = std::fs::read_dir(repository().join("docs")).unwrap().map(|page| page.unwrap().path());
        let pages = pages.filter(|page| page.is_file()).chain([repository().join("README.md")]);
        let commands: Vec<String> = pages.flat_map(|page| typed(&page)).collect();
        assert!(commands.len() > 15, "{commands:?}");
        for command in &commands {
            // The first word is cargo's own.
            let parsed = Cli::try_parse_from(command.split_whitespace().skip(1));
            let command = parsed.unwrap_or_else(|error| panic!("{command}: {error}")).command;
            let Commands::Bench(options) = command else { continue };
            options.check().unwrap();
        }
    }
}
