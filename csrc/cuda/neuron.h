// From printed functions to a neuron's kernels.
#pragma once

#include "backward.h"

namespace stdano {
namespace STDANO_ISA {

template <class S, class A, class scalar>
FastKernels make_fast() {
  constexpr int width = S::is_long ? 4 : 16 / sizeof(scalar);
  return {forward_kernel<S, void, scalar, float, width>, backward_kernel<S, A, void, scalar, float, 4>,
          backward_kernel<S, A, void, scalar, float, 8>, width};
}

template <class S, class A, class C, bool doubles>
DeviceNeuron make_neuron(const char* name, int surrogate) {
  DeviceNeuron out{};
  out.name = name;
  out.states = S::states;
  out.constants = C::constants;
  out.surrogate = surrogate;
  out.is_long = S::is_long;
  out.derive = C::template derive<float>;
  out.general = {forward_kernel<S, C, AnyFloat, float, 1>, backward_kernel<S, A, C, AnyFloat, float, 0>};
  if constexpr (doubles) {  // for checks
    out.derive_double = C::template derive<double>;
    out.general_double = {forward_kernel<S, C, double, double, 1>, backward_kernel<S, A, C, double, double, 0>};
  }
  out.of_float32 = make_fast<S, A, float>();
  out.of_bfloat16 = make_fast<S, A, bfloat16>();
  out.of_float16 = make_fast<S, A, float16>();
  return out;
}

}  // namespace STDANO_ISA
}  // namespace stdano
