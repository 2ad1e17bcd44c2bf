//! No page fault at the limit.
//!
//! A process that the OOM killer spares and that touches new memory while its cgroup is at the limit loops in the
//! kernel until memory appears. So everything that serving needs is touched and locked before the first request:
//! program text and data, the heap's cushion, each serving thread's stack and the part of its request buffer that the
//! kernel can fill.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::mm::MlockAllFlags;

use crate::error::{StoreError, io};

/// The size of fuser's buffer for one request, allocated once by each serving thread as its first act. Only what is
/// negotiated as the largest write is ever filled, so only that much is touched and charged.
const FUSER_BUFFER: usize = 16 << 20;

/// What a serving thread may need of its stack. The deepest path measured takes under 24 KiB.
const STACK: usize = 64 << 10;

/// What the heap may grow by while serving, beyond what is allocated at start.
const HEAP_CUSHION: usize = 128 << 10;

const PAGE: usize = 4096;

/// How much of a serving thread's request buffer is touched, in bytes. 0: not serving yet.
static TOUCH: AtomicUsize = AtomicUsize::new(0);

/// The system allocator, which touches the start of fuser's request buffers, and the stack of the thread that
/// allocates one.
///
/// fuser offers no way to supply these buffers or to run code in its threads before they read the first request; the
/// allocation of the buffer is the one moment in each thread that can be observed.
pub(crate) struct Prefaulting;

// SAFETY: every call is passed on to the system allocator unchanged; the memory that is touched is within the
// allocation just made.
unsafe impl GlobalAlloc for Prefaulting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc_zeroed`.
        let pointer = unsafe { System.alloc_zeroed(layout) };
        let touch = TOUCH.load(Ordering::Relaxed);
        if touch != 0 && layout.size() >= FUSER_BUFFER && !pointer.is_null() {
            for offset in (0..touch.min(layout.size())).step_by(PAGE) {
                // SAFETY: `offset` is within the allocation, which holds zeros already.
                unsafe { pointer.add(offset).write_volatile(0) };
            }
            touch_stack::<STACK>();
        }
        pointer
    }
}

/// Touches `BYTES` of the calling thread's stack below where it is now.
#[inline(never)]
pub(crate) fn touch_stack<const BYTES: usize>() {
    let mut stack = [0u8; BYTES];
    for offset in (0..BYTES).step_by(PAGE) {
        stack[offset] = black_box(1);
    }
    black_box(&stack);
}

/// Touches the heap's cushion: what is allocated and freed again in small pieces finds touched memory.
pub(crate) fn renew_cushion() {
    let mut cushion = vec![0u8; HEAP_CUSHION];
    for offset in (0..HEAP_CUSHION).step_by(PAGE) {
        cushion[offset] = black_box(1);
    }
    drop(black_box(cushion));
}

/// To be called first: no huge pages (one would be charged whole for a heap of a few KiB), one heap, which is never
/// given back, and which never moves into mappings of its own.
pub(crate) fn settle() -> Result<(), StoreError> {
    // SAFETY: plain integers; affects only this process.
    if unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } != 0 {
        return Err(io("switch huge pages off")(std::io::Error::last_os_error()));
    }
    let settings = [
        (libc::M_ARENA_MAX, 1),
        (libc::M_TRIM_THRESHOLD, i32::MAX),
        // Larger than any buffer but fuser's, so that those come from the touched heap or are made at start.
        (libc::M_MMAP_THRESHOLD, 4 << 20),
    ];
    for (parameter, value) in settings {
        // SAFETY: no other thread exists yet.
        if unsafe { libc::mallopt(parameter, value) } != 1 {
            return Err(io("set up the heap")(std::io::Error::last_os_error()));
        }
    }
    Ok(())
}

/// Locks what is mapped now: program, libraries, stack.
pub(crate) fn lock_present() -> Result<(), StoreError> {
    rustix::mm::mlockall(MlockAllFlags::CURRENT)
        .map_err(io("lock memory (LimitMEMLOCK= of the unit is too small)"))
}

/// Touches the heap's cushion, and from now on locks what is touched, when it is touched: fuser's buffers are 16 MiB
/// each, and only `request_bytes` and a little of each may be charged to the target.
pub(crate) fn lock_future(request_bytes: usize) -> Result<(), StoreError> {
    renew_cushion();
    touch_stack::<STACK>();
    rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .map_err(io("lock memory (LimitMEMLOCK= of the unit is too small)"))?;
    // One page for the request's header, one for the buffer's alignment.
    TOUCH.store(request_bytes + 2 * PAGE, Ordering::Relaxed);
    Ok(())
}
