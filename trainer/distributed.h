// Data parallel training over processes and machines: torch's own c10d with Gloo.
#pragma once

#include <memory>

#include "trainer/parameters.h"

namespace llava_mini::trainer {

/// The processes of a run. Not thread-safe.
class ProcessGroup {
  public:
    /// As torchrun (RANK, WORLD_SIZE), Open MPI's mpirun (OMPI_COMM_WORLD_RANK, _SIZE) or Slurm
    /// (SLURM_PROCID, SLURM_NTASKS) say; they meet at MASTER_ADDR (default 127.0.0.1) and MASTER_PORT
    /// (default 29500). Null if none of these is set or there is one process. Throws Error(kUsage) for values
    /// that make no sense and Error(kSystem) if the processes do not find each other.
    static std::unique_ptr<ProcessGroup> from_environment();
    ProcessGroup(int rank, int size, const std::string& address, int port);
    ~ProcessGroup();

    int rank() const { return rank_; }
    int size() const { return size_; }
    /// Adds up `values` over all processes, in place. Throws Error(kSystem) when another process has died or
    /// does not answer for half an hour.
    void sum(torch::Tensor& values);
    /// Returns when all processes are here. Throws as sum().
    void barrier();

  private:
    struct Impl;
    int rank_, size_;
    std::unique_ptr<Impl> impl_;
};

/// Adds up the gradients of all processes; returns whether any of them gave `flag`.
bool sum_gradients(Parameters& parameters, ProcessGroup& group, bool flag);

}  // namespace llava_mini::trainer
