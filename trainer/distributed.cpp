#include "trainer/distributed.h"

#include <charconv>
#include <cstdlib>
#include <cstring>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "core/error.h"

namespace llava_mini::trainer {
namespace {

// The number in an environment variable; -1 if it is not set.
int number_of(const char* name, int low, int high) {
    const char* text = std::getenv(name);
    if (text == nullptr) return -1;
    int value = -1;
    const char* end = text + std::strlen(text);
    const auto result = std::from_chars(text, end, value);
    if (result.ec != std::errc() || result.ptr != end || value < low || value > high) {
        throw_usage("{}: expected a number from {} to {}, found '{}'", name, low, high, text);
    }
    return value;
}

}  // namespace

struct ProcessGroup::Impl {
    c10::intrusive_ptr<c10d::Store> store;
    c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
};

std::unique_ptr<ProcessGroup> ProcessGroup::from_environment() {
    constexpr int kMost = 1 << 20;
    for (const auto& [rank_name, size_name] : {std::pair{"RANK", "WORLD_SIZE"},
                                               {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                               {"SLURM_PROCID", "SLURM_NTASKS"}}) {
        const int size = number_of(size_name, 1, kMost), rank = number_of(rank_name, 0, kMost);
        if (size < 0 || rank < 0) continue;
        if (rank >= size) throw_usage("{} is {}, but {} is {}", rank_name, rank, size_name, size);
        if (size == 1) return nullptr;
        const char* address = std::getenv("MASTER_ADDR");
        const int port = number_of("MASTER_PORT", 1, 65535);
        return std::make_unique<ProcessGroup>(rank, size, address == nullptr ? "127.0.0.1" : address,
                                              port < 0 ? c10d::TCPStoreOptions::kDefaultPort : port);
    }
    return nullptr;
}

ProcessGroup::ProcessGroup(int rank, int size, const std::string& address, int port)
    : rank_(rank), size_(size), impl_(std::make_unique<Impl>()) {
    try {
        c10d::TCPStoreOptions store;
        store.port = static_cast<uint16_t>(port);
        store.isServer = rank == 0;
        store.numWorkers = static_cast<size_t>(size);
        impl_->store = c10::make_intrusive<c10d::TCPStore>(address, store);
        auto options = c10d::ProcessGroupGloo::Options::create();
        options->devices.push_back(address == "127.0.0.1" || address == "localhost"
                                       ? c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1")
                                       : c10d::ProcessGroupGloo::createDefaultDevice());
        impl_->gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(impl_->store, rank, size, options);
    } catch (const std::exception& e) {
        throw_system("process {} of {}: the others are not found at {}:{}: {}", rank, size, address, port,
                     e.what());
    }
}

ProcessGroup::~ProcessGroup() = default;

void ProcessGroup::sum(torch::Tensor& values) {
    try {
        std::vector<torch::Tensor> tensors = {values};
        impl_->gloo->allreduce(tensors)->wait();
    } catch (const std::exception& e) {
        throw_system(
            "process {} of {}: another process of this run has died or does not answer ({}); start all again "
            "to go on from the newest checkpoint",
            rank_, size_, e.what());
    }
}

void ProcessGroup::barrier() {
    torch::Tensor nothing = torch::zeros({1});
    sum(nothing);
}

bool sum_gradients(Parameters& parameters, ProcessGroup& group, bool flag) {
    const torch::NoGradGuard no_gradients;
    std::vector<torch::Tensor> flat;
    for (const Leaf& leaf : parameters.leaves()) {
        if (leaf.value.requires_grad()) flat.push_back(leaf.value.grad().view({-1}));
    }
    flat.push_back(torch::full({1}, flag ? 1.0 : 0.0));
    torch::Tensor all = torch::cat(flat);
    group.sum(all);
    int64_t at = 0;
    for (const Leaf& leaf : parameters.leaves()) {
        if (!leaf.value.requires_grad()) continue;
        leaf.value.grad().view({-1}).copy_(all.slice(0, at, at + leaf.value.numel()));
        at += leaf.value.numel();
    }
    return all[at].item<float>() > 0;
}

}  // namespace llava_mini::trainer
