//! Buffers for data on the way to a reader: one for each serving thread, made and touched at start.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};

/// A pool with as many buffers as there are serving threads, so that taking one never waits and never allocates.
pub(crate) struct Buffers {
    free: Mutex<Vec<Box<[u8]>>>,
    size: usize,
}

impl Buffers {
    /// Makes and touches `count` buffers of `size` bytes.
    pub(crate) fn new(count: usize, size: usize) -> Self {
        // Written, not only reserved: a zeroed allocation is not backed by pages until it is touched.
        let buffer = || vec![1u8; size].into_boxed_slice();
        Self { free: Mutex::new((0..count).map(|_| buffer()).collect()), size }
    }

    /// A buffer, for as long as the guard lives. Its content is what the last user left.
    pub(crate) fn take(&self) -> BufferGuard<'_> {
        let taken = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // More users than threads cannot be; were it so, an allocation is better than a panic.
        BufferGuard { pool: self, buffer: taken.unwrap_or_else(|| vec![0; self.size].into_boxed_slice()) }
    }
}

/// A buffer that goes back to its pool when it is dropped.
pub(crate) struct BufferGuard<'a> {
    pool: &'a Buffers,
    buffer: Box<[u8]>,
}

impl Deref for BufferGuard<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer
    }
}

impl DerefMut for BufferGuard<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
}

impl Drop for BufferGuard<'_> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.pool.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back() {
        let buffers = Buffers::new(1, 16);
        buffers.take()[0] = 7;
        assert_eq!(buffers.take()[0], 7);
        assert_eq!(buffers.take().len(), 16);
    }
}
