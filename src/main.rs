//! The program `sealgate`: see the library's documentation and `sealgate help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sealgate::cli::run(std::env::args_os())
}
