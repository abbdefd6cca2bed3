// The schemas of the operators that every backend has. csrc/ops.cpp includes this file, and stdano_kernels/triton/ops.py
// reads it. `kernel` names a neuron with its settings; `values` are its constants, of which those numbered `which` are
// tensors instead. `sequences` are the numbers of states whose values after every step are wanted. Of a super neuron
// `values` are the constants of each neuron and behind them its alpha, one neuron after the other.
m.def(
    "scan_forward(Tensor x, Tensor[] state, Tensor[] constants, Tensor? affine, int[] which, float[] values, "
    "float alpha, str kernel, bool save_checkpoints, bool return_state, int[] sequences)"
    " -> (Tensor spikes, Tensor[] state, Tensor[] sequences, Tensor checkpoints)");
m.def(
    "scan_backward(Tensor grad_spikes, Tensor[] grad_state, Tensor[] grad_sequences, Tensor x, Tensor[] state, "
    "Tensor checkpoints, Tensor[] constants, Tensor? affine, int[] which, float[] values, float alpha, str kernel, "
    "int[] sequences) -> (Tensor grad_x, Tensor[] grad_state, Tensor[] grad_constants, Tensor affine_sums)");
m.def("super_neuron_encode(Tensor x, str[] kernels, float[] values) -> (Tensor codes, Tensor counts)");
m.def("super_neuron_decode(Tensor codes, Tensor table, Tensor like) -> Tensor");
m.def("super_neuron_sums(Tensor codes, Tensor grad, int members) -> Tensor");
m.def(
    "super_neuron_backward(Tensor grad, Tensor x, Tensor codes, Tensor table, str[] kernels, float[] values) -> Tensor");
m.def("pack_spikes(Tensor x, int scale, int planes) -> (Tensor bits, Tensor wrong, bool exact)");
m.def("unpack_spikes(Tensor bits, Tensor wrong, int scale, Tensor like) -> Tensor");
m.def("channel_sums(Tensor x) -> Tensor");
m.def("channel_affine(Tensor grad, Tensor x, Tensor table) -> Tensor");
m.def("channel_affine_(Tensor(a!) grad, Tensor x, Tensor table) -> ()");
m.def(
    "norm_scan_forward(Tensor x, Tensor[] state, Tensor[] constants, Tensor? weight, Tensor? bias, "
    "Tensor(a!)? running_mean, Tensor(b!)? running_var, bool training, float momentum, float eps, int[] which, "
    "float[] values, float alpha, str kernel, bool save_checkpoints, bool return_state, int[] sequences)"
    " -> (Tensor spikes, Tensor[] state, Tensor[] sequences, Tensor checkpoints, Tensor affine, Tensor moments)");
m.def(
    "norm_scan_backward(Tensor grad_spikes, Tensor[] grad_state, Tensor[] grad_sequences, Tensor x, Tensor[] state, "
    "Tensor checkpoints, Tensor[] constants, Tensor affine, Tensor moments, int[] which, float[] values, float alpha, "
    "str kernel, int[] sequences) -> (Tensor grad_x, Tensor[] grad_state, Tensor[] grad_constants, "
    "Tensor grad_weight, Tensor grad_bias)");
m.def(
    "super_neuron_forward(Tensor x, Tensor weights, Tensor(a!)? running_mean, Tensor(b!)? running_var, bool training, "
    "float momentum, float eps, str[] kernels, float[] values) -> (Tensor y, Tensor codes, Tensor moments)");
m.def(
    "super_neuron_gradients(Tensor grad, Tensor x, Tensor codes, Tensor moments, bool training, str[] kernels, "
    "float[] values) -> (Tensor grad_x, Tensor grad_weights)");
