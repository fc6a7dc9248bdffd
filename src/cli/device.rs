//! `--device`: where the models of a command compute.

use anyhow::Result;
use clap::Args;

use crate::bail_input;
use crate::device::{self, DeviceChoice};

/// The device of a command.
#[derive(Debug, Args)]
pub struct DeviceArg {
    /// Where to compute: cpu, cuda, or cuda:N for the GPU with that number [default: the first GPU that a CUDA build finds,
    /// otherwise the CPU]
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
}

impl DeviceArg {
    /// Opens the device for this process, before anything is written.
    ///
    /// # Errors
    /// As [`device::device`].
    pub fn open(&self) -> Result<()> {
        device::choose_device(self.device)?;
        device::device().map(drop)
    }

    /// Leaves the device to processes that this one starts, and looks whether there is one where they run `here`.
    ///
    /// # Errors
    /// As [`device::check_device`].
    pub fn pass_on(&self, here: bool) -> Result<()> {
        device::choose_device(self.device)?;
        if here { device::check_device() } else { Ok(()) }
    }

    /// Refuses a device for a command that computes nothing without another flag.
    ///
    /// # Errors
    /// An [`crate::error::InputError`] that names the flag.
    pub fn must_be_absent_without(&self, flag: &str) -> Result<()> {
        match self.device {
            Some(_) => bail_input!("--device: expected {flag} too"),
            None => Ok(()),
        }
    }
}
