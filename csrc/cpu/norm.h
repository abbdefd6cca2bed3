// BatchNorm and the neuron behind it, a few channels after the other: what the statistics have read is still in the
// second-level cache when the neuron runs, and on the way back when their part is added to the gradient.
#pragma once

#include "../norm.h"
#include "scan.h"

namespace stdano {
namespace STDANO_ISA {

// How channels are put together: so many that their neighbouring neurons fill a block, as long as x's part of them fits
// the cache. None (0) where channels do not lie together, or there are too few groups for many threads.
constexpr int64_t kGroupBytes = 1 << 19, kFewestGroups = 32;

inline int64_t channels_of_group(const Geometry& g) {
  if (channels_innermost(g) || g.N == 0 || g.T == 0) return 0;
  const int64_t bytes = g.N / g.channels * g.T * static_cast<int64_t>(sizeof(float));  // of a channel
  const int64_t most = kGroupBytes / bytes, filling = (kForwardBlock + g.channel_stride - 1) / g.channel_stride;
  const int64_t size = filling < most ? filling : most;
  return size * g.channel_stride >= kForwardBlock / 8 && g.channels / (size > 0 ? size : 1) >= kFewestGroups ? size : 0;
}

inline int64_t count_groups(const Geometry& g) {
  const int64_t size = channels_of_group(g);
  return size > 0 ? (g.channels + size - 1) / size : 0;
}

// Calls f with the blocks of neurons of channels [first, end), of at most so many columns.
template <class F>
void blocks_of_channels(const Geometry& g, int64_t first, int64_t end, int64_t columns, F f) {
  for (int64_t outer = 0; outer < g.N; outer += g.channels * g.channel_stride) {
    const int64_t stop = outer + end * g.channel_stride;
    for (int64_t m = outer + first * g.channel_stride; m < stop; m += columns) {
      f(Block{g, m, stop - m < columns ? stop - m : columns});
    }
  }
}

// Calls f(first channel, end) for groups begin..end-1.
template <class F>
void groups_of_channels(const Geometry& g, int64_t begin, int64_t end, F f) {
  const int64_t size = channels_of_group(g);
  for (int64_t group = begin; group < end; ++group) {
    f(group * size, (group + 1) * size < g.channels ? (group + 1) * size : g.channels);
  }
}

template <class scalar, class real>
void norm_forward(const NormScan& call, int64_t begin, int64_t end) {
  const Geometry& g = call.scan.g;
  ForwardPass<scalar, real> scan(call.scan);
  MomentsPass<scalar, real> moments(call.scan.x, call.scan.of_x().T);
  groups_of_channels(g, begin, end, [&](int64_t first, int64_t stop) {
    blocks_of_channels(g, first, stop, kForwardBlock, [&](const Block& block) { moments.run(block, call.sums); });
    finish_channels(NormForward<real>{call.norm}, call.sums, first, stop);
    blocks_of_channels(g, first, stop, kForwardBlock, [&](const Block& block) { scan.run(block); });
  });
}

template <class scalar, class real>
void norm_backward(const NormScanBackward& call, int64_t begin, int64_t end) {
  const Geometry& g = call.scan.g;
  BackwardPass<scalar, real> scan(call.scan);
  AffinePass<scalar, real> affine(call.affine);
  const double* sums = call.scan.sums + call.scan.neuron.kernels->constants * g.channels;
  groups_of_channels(g, begin, end, [&](int64_t first, int64_t stop) {
    blocks_of_channels(g, first, stop, backward_block(g), [&](const Block& block) { scan.run(block, call.scan.sums); });
    finish_channels(NormBackward<real>{call.norm}, sums, first, stop);
    blocks_of_channels(g, first, stop, kForwardBlock, [&](const Block& block) { affine.run(block); });
  });
}

}  // namespace STDANO_ISA
}  // namespace stdano
