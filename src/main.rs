//! The `reelvault` program: parses, runs, and ends with an exit code.

fn main() -> std::process::ExitCode {
    reelvault::cli::main()
}
