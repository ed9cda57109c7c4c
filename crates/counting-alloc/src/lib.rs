//! An allocator that counts, per thread, the bytes that are held: how a run's memory is known
//! without the script engine's help. A run stays on one thread from its beginning to its end.
//!
//! This is the only unsafe code of the workspace. It adds two thread-local additions to the
//! system's allocator, and changes nothing else.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    // Const-initialised and without a destructor: usable at any time of a thread's life.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static CEILING: Cell<isize> = const { Cell::new(isize::MAX) };
}

/// The system's allocator, counting. Set it with `#[global_allocator]`.
#[derive(Debug, Clone, Copy, Default)]
pub struct CountingAllocator;

/// A run's measurement on this thread.
#[derive(Debug, Clone, Copy)]
pub struct Measurement {
    base: isize,
}

impl Measurement {
    /// Begins to measure; what the thread holds already doesn't count.
    pub fn begin() -> Self {
        let base = HELD.get();
        PEAK.set(base);
        Self { base }
    }

    /// Sets how much may be held beyond the beginning, until [`Measurement::end`].
    pub fn limit(self, bytes: u64) {
        CEILING.set(
            self.base
                .saturating_add(isize::try_from(bytes).unwrap_or(isize::MAX)),
        );
    }

    /// Ends the limit.
    pub fn end(self) {
        CEILING.set(isize::MAX);
    }

    /// Bytes held now, beyond those at the beginning.
    pub fn held(self) -> u64 {
        u64::try_from(HELD.get() - self.base).unwrap_or(0)
    }

    /// The most bytes that were held at once since the beginning.
    pub fn peak(self) -> u64 {
        u64::try_from(PEAK.get() - self.base).unwrap_or(0)
    }
}

/// Whether this thread holds more than its limit: cheap enough to be asked at each operation.
#[inline]
pub fn is_over() -> bool {
    HELD.get() > CEILING.get()
}

#[inline]
fn add(bytes: usize) {
    let held = HELD.get() + bytes.cast_signed();
    HELD.set(held);
    if held > PEAK.get() {
        PEAK.set(held);
    }
}

#[inline]
fn remove(bytes: usize) {
    HELD.set(HELD.get() - bytes.cast_signed());
}

// SAFETY: each call is handed to `System` as it came, and its answer is given back as it is; the
// counters neither allocate nor unwind.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller keeps `GlobalAlloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        remove(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        remove(layout.size());
        add(new_size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: CountingAllocator = CountingAllocator;

    #[test]
    fn what_is_held_is_counted_and_what_is_freed_is_not() {
        let measurement = Measurement::begin();
        let buffer = vec![1_u8; 1 << 20];
        assert!(measurement.held() >= 1 << 20);
        drop(buffer);
        assert!(measurement.held() < 1 << 10, "{}", measurement.held());
        assert!(measurement.peak() >= 1 << 20);
    }
}
