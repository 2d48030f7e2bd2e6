//! The `reelvault` program: prepares the allocator, parses, runs, and ends with an exit code.

fn main() -> std::process::ExitCode {
    #[cfg(target_env = "gnu")]
    share_one_heap();
    reelvault::cli::main()
}

/// Has all threads allocate from one heap, which keeps what it will need again.
///
/// A frame of video is allocated by one thread and freed by another. By itself glibc gives each thread a heap, and each
/// keeps the most that it ever held; and it gives memory back as soon as 128 KiB lie idle at a heap's end, to have it
/// faulted in for the next frame.
#[cfg(target_env = "gnu")]
#[expect(
    unsafe_code,
    reason = "the C library's own settings have no other door"
)]
fn share_one_heap() {
    const MIB: libc::c_int = 1 << 20;
    let settings = [
        (libc::M_ARENA_MAX, 1),
        (libc::M_TRIM_THRESHOLD, 16 * MIB),
        // Unless it is set as well, it stays at 128 KiB once the other is, and each larger buffer is mapped by itself.
        (libc::M_MMAP_THRESHOLD, 4 * MIB),
    ];
    for (name, value) in settings {
        // SAFETY: it takes two numbers, and no other thread has been started yet. What it does not know it ignores.
        unsafe { libc::mallopt(name, value) };
    }
}
