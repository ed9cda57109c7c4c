//! An allocator that counts, per thread, the bytes that are held: how a run's memory is known
//! without the script engine's help. A run stays on one thread from its beginning to its end.
//!
//! It also weighs blocks of the sizes in which the engine keeps what values nest in. A value can't
//! be nested deeper than there are such blocks, so a bound on their weight is a bound on the stack
//! that dropping, cloning or comparing a value takes.
//!
//! This is the only unsafe code of the workspace. It adds thread-local additions to the system's
//! allocator, and changes nothing else.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    // Const-initialised and without a destructor: usable at any time of a thread's life.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static CEILING: Cell<isize> = const { Cell::new(isize::MAX) };
    static WEIGHT: Cell<isize> = const { Cell::new(0) };
    static WEIGHT_CEILING: Cell<isize> = const { Cell::new(isize::MAX) };
}

/// Sizes of blocks that values nest in, aligned to 8, and what each weighs: the box of an array or
/// a map, and a shared cell; a closure. Texts are as large as closures, which weigh little for that.
pub const NODES: [(usize, isize); 3] = [(24, 7), (48, 7), (40, 1)];

#[inline]
const fn node(size: usize, align: usize) -> isize {
    if align != 8 {
        0
    } else if size == NODES[0].0 || size == NODES[1].0 {
        NODES[0].1
    } else if size == NODES[2].0 {
        NODES[2].1
    } else {
        0
    }
}

/// The system's allocator, counting. Set it with `#[global_allocator]`.
#[derive(Debug, Clone, Copy, Default)]
pub struct CountingAllocator;

/// A run's measurement on this thread.
#[derive(Debug, Clone, Copy)]
pub struct Measurement {
    base: isize,
    nodes: isize,
}

impl Measurement {
    /// Begins to measure; what the thread holds already doesn't count.
    pub fn begin() -> Self {
        let base = HELD.get();
        PEAK.set(base);
        Self {
            base,
            nodes: WEIGHT.get(),
        }
    }

    /// Sets how much may be held beyond the beginning before [`is_over`] says so, until
    /// [`Measurement::end`].
    pub fn watch(self, bytes: u64, nodes: u64) {
        let above = |base: isize, count: u64| {
            base.saturating_add(isize::try_from(count).unwrap_or(isize::MAX))
        };
        CEILING.set(above(self.base, bytes));
        WEIGHT_CEILING.set(above(self.nodes, nodes));
    }

    /// Ends the watch.
    pub fn end(self) {
        CEILING.set(isize::MAX);
        WEIGHT_CEILING.set(isize::MAX);
    }

    /// The weight of the blocks held now that values nest in.
    pub fn nodes(self) -> u64 {
        u64::try_from(WEIGHT.get() - self.nodes).unwrap_or(0)
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

/// Whether this thread holds more than is watched for: cheap enough to be asked at each operation.
#[inline]
pub fn is_over() -> bool {
    HELD.get() > CEILING.get() || WEIGHT.get() > WEIGHT_CEILING.get()
}

/// Calls something that hands memory to other threads and takes memory from them: none of it is
/// this one's, neither what was allocated here and is freed there, nor the other way round. What
/// the call gives belongs to nobody until it is copied, and is let go by the same way.
pub fn apart<T>(body: impl FnOnce() -> T) -> T {
    let (held, nodes) = (HELD.get(), WEIGHT.get());
    let value = body();
    HELD.set(held);
    WEIGHT.set(nodes);
    value
}

#[inline]
fn add(size: usize, align: usize) {
    let held = HELD.get() + size.cast_signed();
    HELD.set(held);
    if held > PEAK.get() {
        PEAK.set(held);
    }
    WEIGHT.set(WEIGHT.get() + node(size, align));
}

#[inline]
fn remove(size: usize, align: usize) {
    HELD.set(HELD.get() - size.cast_signed());
    WEIGHT.set(WEIGHT.get() - node(size, align));
}

// SAFETY: each call is handed to `System` as it came, and its answer is given back as it is; the
// counters neither allocate nor unwind.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size(), layout.align());
        // SAFETY: the caller keeps `GlobalAlloc`'s contract, which is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size(), layout.align());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        remove(layout.size(), layout.align());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        remove(layout.size(), layout.align());
        add(new_size, layout.align());
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

    #[test]
    fn blocks_that_values_nest_in_are_counted() {
        let measurement = Measurement::begin();
        let boxes: Vec<Box<[u64; 3]>> = (0..100).map(|_| Box::new([0; 3])).collect();
        assert_eq!(measurement.nodes(), 700);
        measurement.watch(u64::MAX, 50);
        assert!(is_over());
        measurement.end();
        apart(|| drop(boxes));
        assert_eq!(measurement.nodes(), 700, "they do not make room");
    }

    #[test]
    fn what_goes_to_other_threads_and_comes_from_them_is_nobodys() {
        let measurement = Measurement::begin();
        let theirs = apart(|| {
            let ours = vec![1_u8; 1 << 20];
            let other = std::thread::spawn(move || (drop(ours), vec![2_u8; 1 << 20]).1);
            other.join().unwrap_or_default()
        });
        assert!(measurement.held() < 1 << 10, "{}", measurement.held());
        let copy = theirs.clone();
        apart(|| drop(theirs));
        assert!(measurement.held() >= 1 << 20, "the copy counts");
        drop(copy);
        assert!(measurement.held() < 1 << 10, "and makes its own room again");
    }
}
