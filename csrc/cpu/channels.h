// Channels on the CPU: from numbers for each channel to rows for a block's neurons and back, BatchNorm's sums, and the
// map of each channel that completes its gradient.
//
// In memory order, neighbouring neurons of a channel are runs of `channel_stride`; with the channels innermost
// (channels-last) every neuron is a run, and a block is then a piece of the cycle of channels.
#pragma once

#include "blocks.h"

namespace stdano {
namespace STDANO_ISA {

// Calls f(first neuron of the block, count, channel) for each run; where channels are innermost, for each piece in
// which the channel counts up with the neuron. f tells the two apart by channels_innermost().
inline bool channels_innermost(const Geometry& g) { return g.channel_stride == 1 && g.channels > 1; }

template <class F>
STDANO_INLINE void runs(const Block& b, F f) {
  const Geometry& g = b.g;
  const int64_t length = channels_innermost(g) ? g.channels : g.channel_stride;
  int64_t channel = channels_innermost(g) ? b.begin % g.channels : b.begin / g.channel_stride % g.channels;
  int64_t left = channels_innermost(g) ? g.channels - channel : g.channel_stride - b.begin % g.channel_stride;
  for (int64_t i = 0; i < b.size;) {
    const int64_t count = left < b.size - i ? left : b.size - i;
    f(i, count, channel);
    i += count;
    left = length;
    channel = channels_innermost(g) ? 0 : (channel + 1 < g.channels ? channel + 1 : 0);
  }
}

// A row for the block's neurons from one number for each channel.
template <class real>
STDANO_APART void expand(const Block& b, const real* per_channel, real* row) {
  const bool innermost = channels_innermost(b.g);
  runs(b, [&](int64_t first, int64_t count, int64_t channel) {
    if (innermost) {
      std::memcpy(row + first, per_channel + channel, count * sizeof(real));
    } else {
      const real value = per_channel[channel];
      for (int64_t i = 0; i < count; ++i) row[first + i] = value;
    }
  });
}

template <class real>
void expand_table(const Block& b, const void* table, int64_t rows, real* out, int64_t columns) {
  for (int64_t r = 0; r < rows; ++r) expand(b, static_cast<const real*>(table) + r * b.g.channels, out + r * columns);
}

// Partial sums of a run, so many that an addition never waits for the one before it. Their number is fixed, and so is
// the order of all additions, whatever the width of the machine's vectors.
constexpr int kLanes = 32;

template <int lanes = kLanes, class real>
STDANO_INLINE double sum_lanes(const real* lane) {
  double sum[lanes];
  for (int j = 0; j < lanes; ++j) sum[j] = lane[j];
  for (int half = lanes / 2; half > 0; half /= 2) {
    for (int j = 0; j < half; ++j) sum[j] += sum[j + half];
  }
  return sum[0];
}

// Adds f(i) of the block's neurons to the sums of their channels.
template <class F>
STDANO_INLINE void accumulate(const Block& b, double* sums, F f) {
  const bool innermost = channels_innermost(b.g);
  runs(b, [&](int64_t first, int64_t count, int64_t channel) {
    if (innermost) {
      double* __restrict to = sums + channel;
      STDANO_VECTORIZE
      for (int64_t i = 0; i < count; ++i) to[i] += f(first + i);
      return;
    }
    if (count < kLanes) {
      for (int64_t i = 0; i < count; ++i) sums[channel] += f(first + i);
      return;
    }
    double lane[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      for (int j = 0; j < kLanes; ++j) lane[j] += f(first + i + j);
    }
    for (int j = 0; i < count; ++i, ++j) lane[j] += f(first + i);
    sums[channel] += sum_lanes(lane);
  });
}

template <class real>
STDANO_LOOP void add_row(const Block& b, const real* row, double* sums) {
  accumulate(b, sums, [row](int64_t i) { return static_cast<double>(row[i]); });
}

// One number where a row is expected.
template <class real>
struct Same {
  real value;
  STDANO_INLINE real operator[](int64_t) const { return value; }
};

// Three numbers of each channel, [3][channels], for loops over a block: rows, or as they are where a channel's neighbours
// are worth a loop of their own, instead of rows that push others out of the cache.
template <class real>
class ChannelNumbers {
 public:
  static constexpr int64_t rows = 3;

  ChannelNumbers(const void* table, Workspace<real>& workspace, int64_t columns)
      : table_(static_cast<const real*>(table)), columns_(columns), rows_(table ? workspace.take(rows) : nullptr) {}

  explicit operator bool() const { return table_ != nullptr; }

  static bool long_runs(const Block& b) { return !channels_innermost(b.g) && b.g.channel_stride >= 64; }

  void prepare(const Block& b) {
    if (table_ && !long_runs(b)) expand_table(b, table_, rows, rows_, columns_);
  }

  // Calls f(first neuron of the block, count, and the three, channel), or channel -1 for rows.
  template <class F>
  STDANO_INLINE void pieces(const Block& b, F f) const {
    if (long_runs(b)) {
      const int64_t channels = b.g.channels;
      runs(b, [&](int64_t first, int64_t count, int64_t channel) {
        const real* number = table_ + channel;
        f(first, count, Same<real>{number[0]}, Same<real>{number[channels]}, Same<real>{number[2 * channels]}, channel);
      });
    } else {
      const real* row = rows_;
      f(0, b.size, row, row + columns_, row + 2 * columns_, -1);
    }
  }

 private:
  const real* table_;
  int64_t columns_;
  real* rows_;
};

// The input of a neuron with an affine map of its channel, x = scale*(y - centre) + shift, and the adjoint, which adds
// to the sums for shift and scale.
template <class real>
class ChannelMap {
 public:
  static constexpr int64_t rows = ChannelNumbers<real>::rows + 2;

  ChannelMap(const void* table, Workspace<real>& workspace, int64_t columns)
      : numbers_(table, workspace, columns), columns_(columns), sums_(table ? workspace.take(2) : nullptr) {}

  explicit operator bool() const { return static_cast<bool>(numbers_); }

  void prepare(const Block& b) { numbers_.prepare(b); }
  void clear_sums(const Block& b) {
    if (!numbers_ || ChannelNumbers<real>::long_runs(b)) return;
    for (int64_t i = 0; i < b.size; ++i) sums_[i] = sums_[columns_ + i] = 0;
  }

  // A step's input for the block's neurons; `out` may be y.
  void apply(const Block& b, const real* y, real* out) const {
    numbers_.pieces(b, [&](int64_t first, int64_t n, auto centre, auto scale, auto shift, int64_t) {
      apply_loop(y + first, centre, scale, shift, out + first, n);
    });
  }

  // From the gradient of the neurons' input to that of y, in place.
  void adjoint(const Block& b, const real* y, real* g, double* shift, double* scale) const {
    numbers_.pieces(b, [&](int64_t first, int64_t n, auto centre, auto factor, auto, int64_t channel) {
      if constexpr (std::is_same<decltype(centre), Same<real>>::value) {
        sum_loop(y + first, centre.value, factor.value, g + first, n, shift[channel], scale[channel]);
      } else {
        adjoint_loop(y + first, centre, factor, sums_ + first, sums_ + columns_ + first, g + first, n);
      }
    });
  }
  // Behind the steps of a block.
  void add_sums(const Block& b, double* shift, double* scale) const {
    if (ChannelNumbers<real>::long_runs(b)) return;
    add_row(b, sums_, shift);
    add_row(b, sums_ + columns_, scale);
  }

 private:
  template <class Numbers>
  static STDANO_LOOP void apply_loop(const real* y, Numbers centre, Numbers scale, Numbers shift, real* out, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) out[i] = fma_(scale[i], y[i] - centre[i], shift[i]);
  }
  // Sums of each neuron over the steps.
  static STDANO_LOOP void adjoint_loop(const real* y, const real* centre, const real* scale, real* of_shift,
                                       real* of_scale, real* g, int64_t n) {
    STDANO_VECTORIZE
    for (int64_t i = 0; i < n; ++i) {
      of_shift[i] += g[i];
      of_scale[i] = fma_(g[i], y[i] - centre[i], of_scale[i]);
      g[i] = scale[i] * g[i];
    }
  }
  // Sums over a step: of a block's neurons there are few enough to one lane for a sum in their own precision.
  static STDANO_LOOP void sum_loop(const real* y, real centre, real scale, real* g, int64_t n, double& shift_sum,
                                   double& scale_sum) {
    real of_shift[kLanes] = {}, of_scale[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      STDANO_VECTORIZE
      for (int j = 0; j < kLanes; ++j) {
        of_shift[j] += g[i + j];
        of_scale[j] = fma_(g[i + j], y[i + j] - centre, of_scale[j]);
        g[i + j] = scale * g[i + j];
      }
    }
    for (int j = 0; i < n; ++i, ++j) {
      of_shift[j] += g[i];
      of_scale[j] = fma_(g[i], y[i] - centre, of_scale[j]);
      g[i] = scale * g[i];
    }
    shift_sum += sum_lanes(of_shift);
    scale_sum += sum_lanes(of_scale);
  }

  ChannelNumbers<real> numbers_;
  int64_t columns_;
  real* sums_;
};

// How blocks of kForwardBlock neurons are divided where sums are taken.
inline int64_t count_channel_slabs(const Geometry& g) {
  const int64_t blocks = count_forward_blocks(g);
  return blocks < kSlabs ? blocks : kSlabs;
}

template <class F>
void blocks_of_slabs(const Geometry& g, int64_t begin, int64_t end, F f) {
  const int64_t blocks = count_forward_blocks(g), slabs = count_channel_slabs(g);
  for (int64_t slab = begin; slab < end; ++slab) {
    for (int64_t index = slab * blocks / slabs; index < (slab + 1) * blocks / slabs; ++index) {
      f(slab, block_at(g, index, kForwardBlock));
    }
  }
}

// Adds the sums of a step's values and of their squares to those of the channels.
template <class real>
STDANO_LOOP void sum_moments(const real* x, int64_t n, double& sum, double& squares) {
  constexpr int lanes = kLanes / 2;
  double of_x[lanes] = {}, of_squares[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    STDANO_VECTORIZE
    for (int j = 0; j < lanes; ++j) {
      const double value = static_cast<double>(x[i + j]);
      of_x[j] += value;
      of_squares[j] = fma_(value, value, of_squares[j]);
    }
  }
  for (int j = 0; i < n; ++i, ++j) {
    const double value = static_cast<double>(x[i]);
    of_x[j] += value;
    of_squares[j] = fma_(value, value, of_squares[j]);
  }
  sum += sum_lanes<lanes>(of_x);
  squares += sum_lanes<lanes>(of_squares);
}

template <class real>
STDANO_LOOP void add_moments(const Block& b, const real* x, double* sums, double* squares) {
  if (channels_innermost(b.g)) {
    accumulate(b, sums, [x](int64_t i) { return static_cast<double>(x[i]); });
    accumulate(b, squares, [x](int64_t i) { return static_cast<double>(x[i]) * static_cast<double>(x[i]); });
    return;
  }
  runs(b, [&](int64_t first, int64_t count, int64_t channel) {
    sum_moments(x + first, count, sums[channel], squares[channel]);
  });
}

template <class scalar, class real>
class MomentsPass {
 public:
  MomentsPass(const void* x, int64_t steps) : x_(x), steps_(steps), workspace_(1, kForwardBlock), buffer_(workspace_.take()) {}

  // A block of at most kForwardBlock neurons; `sums` [kChannelSums][channels] are added to.
  void run(const Block& block, double* sums) {
    for (int64_t t = 0; t < steps_; ++t) {
      add_moments(block, load_step<scalar, real>(x_, block, t, buffer_), sums, sums + block.g.channels);
    }
  }

 private:
  const void* x_;
  int64_t steps_;
  Workspace<real> workspace_;
  real* buffer_;
};

template <class scalar, class real>
void channel_sums(const ChannelSumsCall& call, int64_t begin, int64_t end) {
  MomentsPass<scalar, real> pass(call.x, call.g.T);
  blocks_of_slabs(call.g, begin, end, [&](int64_t slab, const Block& block) {
    pass.run(block, call.sums + slab * kChannelSums * call.g.channels);
  });
}

template <class real, class Numbers>
STDANO_LOOP void affine_loop(const real* g, const real* x, Numbers centre, Numbers slope, Numbers offset, real* out,
                             int64_t n) {
  STDANO_VECTORIZE
  for (int64_t i = 0; i < n; ++i) out[i] = g[i] + fma_(slope[i], x[i] - centre[i], offset[i]);
}

template <class scalar, class real>
class AffinePass {
 public:
  explicit AffinePass(const ChannelAffineCall& call)
      : call_(call),
        workspace_(ChannelNumbers<real>::rows + 3, kForwardBlock),
        numbers_(call.table, workspace_, kForwardBlock),
        x_buffer_(workspace_.take()),
        g_buffer_(workspace_.take()),
        out_buffer_(workspace_.take()) {}

  // A block of at most kForwardBlock neurons.
  void run(const Block& block) {
    numbers_.prepare(block);
    for (int64_t t = 0; t < call_.g.T; ++t) {
      const real* x = load_step<scalar, real>(call_.x, block, t, x_buffer_);
      const real* g = load_step<scalar, real>(call_.grad, block, t, g_buffer_);
      const auto out = target_rows<scalar, real>(call_.out, block, t, out_buffer_, kForwardBlock);
      numbers_.pieces(block, [&](int64_t first, int64_t n, auto centre, auto slope, auto offset, int64_t) {
        affine_loop(g + first, x + first, centre, slope, offset, out.data + first, n);
      });
      store_rows<scalar, real>(call_.out, block, t, 1, out, out_buffer_);
    }
  }

 private:
  const ChannelAffineCall& call_;
  Workspace<real> workspace_;
  ChannelNumbers<real> numbers_;
  real *x_buffer_, *g_buffer_, *out_buffer_;
};

template <class scalar, class real>
void channel_affine(const ChannelAffineCall& call, int64_t begin, int64_t end) {
  AffinePass<scalar, real> pass(call);
  for (int64_t index = begin; index < end; ++index) pass.run(block_at(call.g, index, kForwardBlock));
}

}  // namespace STDANO_ISA
}  // namespace stdano
