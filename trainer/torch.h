// The one place where libtorch's headers come in (precompiled: they take seconds to read).
#pragma once

#include <torch/csrc/api/include/torch/autograd.h>
#include <torch/types.h>
