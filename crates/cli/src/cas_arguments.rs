//! Arguments of the commands that look at a store as a whole.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};
use requiem_model::BlobDigest;

use crate::arguments::StoreArguments;
use crate::config_arguments::TenantArgument;

#[derive(Debug, Args)]
pub(crate) struct CasLs {
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    /// Whose objects [default: everybody's].
    #[arg(long, value_name = "NS")]
    pub(crate) tenant: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CasInfo {
    /// blake3: and 64 hexadecimal digits.
    pub(crate) digest: BlobDigest,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    #[command(flatten)]
    pub(crate) whose: TenantArgument,
}

#[derive(Debug, Args)]
pub(crate) struct CasStats {
    /// Also name the N largest objects.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) top: usize,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    /// Whose objects [default: everybody's].
    #[arg(long, value_name = "NS")]
    pub(crate) tenant: Option<String>,
}

#[derive(Debug, Args)]
#[group(id = "extent", required = true, multiple = false)]
pub(crate) struct HowMuch {
    /// Every object.
    #[arg(long)]
    pub(crate) all: bool,
    /// So many objects, drawn at random.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) sample: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct CasVerify {
    #[command(flatten)]
    pub(crate) extent: HowMuch,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    /// Whose objects [default: everybody's].
    #[arg(long, value_name = "NS")]
    pub(crate) tenant: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CasGc {
    /// Keep what was put less long ago than this: a number and s, m, h, d or w.
    #[arg(long, value_name = "DURATION", default_value = "14d")]
    pub(crate) older_than: Age,
    /// Remove it. Without this, say only what would go.
    #[arg(long)]
    pub(crate) delete: bool,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CasPin {
    /// Keep an object and everything that it names.
    Add(CasPinOne),
    /// Let go of it again.
    Rm(CasPinOne),
    /// List pins.
    Ls(CasLs),
}

#[derive(Debug, Args)]
pub(crate) struct CasPinOne {
    /// blake3: and 64 hexadecimal digits: of a blob, a folder, or a stored proof or result document.
    pub(crate) digest: BlobDigest,
    /// Name of the pin; one object may have several.
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArguments,
    #[command(flatten)]
    pub(crate) whose: TenantArgument,
}

/// How long ago, as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Age {
    pub(crate) duration: Duration,
    pub(crate) text: String,
}

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || "it is not a number and s, m, h, d or w, such as 36h".to_owned();
        let unit = text.chars().next_back().ok_or_else(bad)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            'w' => 7 * 24 * 60 * 60,
            _ => return Err(bad()),
        };
        let digits = &text[..text.len() - 1];
        // A sign is no digit.
        let number =
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u32>().ok()).flatten();
        let number = number.ok_or_else(bad)?;
        Ok(Self { duration: Duration::from_secs(u64::from(number) * seconds), text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_a_number_and_a_unit() {
        let seconds = |text: &str| text.parse::<Age>().map(|age| age.duration.as_secs());
        assert_eq!(
            [seconds("0s"), seconds("5m"), seconds("36h"), seconds("2w")],
            [Ok(0), Ok(300), Ok(129_600), Ok(1_209_600)]
        );
        for bad in ["", "d", "5", "5y", "-5d", "+5d", "5 d", "5dd", "1.5h", "99999999999d", "é"] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }
}
