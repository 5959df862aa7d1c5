// A training run: phases, steps, log, checkpoints.
#pragma once

#include <filesystem>
#include <functional>

#include "core/progress.h"
#include "trainer/checkpoint.h"
#include "trainer/data.h"
#include "trainer/distributed.h"
#include "trainer/losses.h"
#include "trainer/recipe.h"
#include "trainer/run_log.h"

namespace llava_mini::trainer {

struct RunOptions {
    std::filesystem::path folder;  ///< of the run: log.jsonl, curves.svg, checkpoints/, model/
    std::filesystem::path base;    ///< checkpoint folder whose configuration and tokenizer are copied
    int data_threads = 1;
    int log_every = 100;  ///< optimiser steps
    /// Called after every step with samples done and in all; false: save and stop.
    Progress progress;
    /// The processes that share the work: the `accumulate` forward passes of a step are dealt out to them, so
    /// that the run is the same, but for the order of sums, whatever their number. Null: this one alone. The
    /// first one logs and saves.
    ProcessGroup* group = nullptr;
};

/// How a run ended.
enum class RunEnd { kDone, kStopped };

/// Makes a model ready for the recipe: adapters, frozen parts in bf16, gradient checkpointing. Called before
/// weights are loaded it saves memory, later it does the same to what is loaded.
void prepare_model(const Recipe& recipe, LlavaMini& model);

/// Trains `model`, a prepared one, as the recipe says, from the newest checkpoint in the folder or, if there is none, from the
/// model as it is. At the end, and whenever it is stopped, there is a checkpoint; at the end also
/// `folder`/model, which the converter takes, adapters merged, and those alone as `folder`/adapter.gguf
/// (trainer/lora.h). Samples of finite sources that cannot be read are passed over
/// and logged (events "skipped", and their number in "done"); a hundred in a row end the run. A run that was stopped and goes on computes the same bits as
/// one that was not (same threads, same machine). Errors as batch_loss and save_checkpoint.
RunEnd run_recipe(const Recipe& recipe, LlavaMini& model, const Tokenizer& tokenizer,
                  const SourceFactory& factory, const RunOptions& options);

/// Exact answers by question type over `samples` samples of the recipe's validation data, greedy, the right
/// answer's tokens given (all must be the most likely ones, end token included).
/// Bad samples are passed over as in training.
Counts validate(const Recipe& recipe, LlavaMini& model, const ExampleMaker& maker, const SampleOrder& order,
                const Phase& phase, RunLog& log);

}  // namespace llava_mini::trainer
