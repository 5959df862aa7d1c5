// llava-mini scenes: synthetic pictures and clips with questions.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "core/error.h"
#include "core/file.h"
#include "core/stopwatch.h"
#include "media/picture_writer.h"
#include "progress_bar.h"
#include "scenes/generator.h"
#include "scenes/priors.h"
#include "scenes/sheet.h"
#include "scenes_flags.h"

namespace llava_mini::tools {
namespace {

constexpr uint64_t kSpeedSamples = 2000;

struct ScenesFlags {
    ScenesOptionsFlags generator;
    uint64_t samples = 16, first = 0;
    std::filesystem::path out, sheet;
    bool stats = false, json = false, marks = false;
};

void write_sheet(const scenes::SceneGenerator& generator, const ScenesFlags& flags) {
    std::vector<Sample> samples;
    for (uint64_t i = 0; i < flags.samples; ++i) samples.push_back(generator.sample(flags.first + i));
    const auto& options = generator.options();
    const Image sheet = scenes::draw_sheet(
        samples, {.columns = options.clip_share > 0 ? 2 : 4, .marks = flags.marks, .fonts = options.fonts});
    AtomicFile file(flags.sheet);
    file.write(encode_png(sheet));
    file.commit();
}

double samples_a_second(const scenes::SceneGenerator& generator, uint64_t samples) {
    double seconds = 0;
    {
        const Stopwatch watch(seconds);
        for (uint64_t i = 0; i < samples; ++i) generator.sample(i);
    }
    return static_cast<double>(samples) / seconds;
}

void print_stats(const scenes::SceneGenerator& generator, const ScenesFlags& flags) {
    std::vector<scenes::Prior> priors;
    {
        ProgressBar bar;
        priors = scenes::measure_priors(generator, flags.samples, bar.callback());
    }
    const double speed = samples_a_second(generator, std::min(kSpeedSamples, flags.samples));
    if (flags.json) {
        nlohmann::ordered_json list = nlohmann::ordered_json::array();
        for (const auto& prior : priors) {
            list.push_back({{"type", prior.type},
                            {"questions", prior.questions},
                            {"answer", prior.answer},
                            {"constant", prior.constant},
                            {"from_question", prior.from_question}});
        }
        const nlohmann::ordered_json object = {
            {"samples", flags.samples}, {"samples_per_second", speed}, {"priors", list}};
        fmt::print("{}\n", object.dump(2));
        return;
    }
    fmt::print("{:<10} {:>9}  {:>8}  {:>13}  {}\n", "type", "questions", "constant", "from question",
               "commonest answer");
    for (const auto& prior : priors) {
        fmt::print("{:<10} {:>9}  {:>8.3f}  {:>13.3f}  {}\n", prior.type, prior.questions, prior.constant,
                   prior.from_question, prior.answer);
    }
    fmt::print("{:.0f} samples a second on one core\n", speed);
}

void run(const ScenesFlags& flags) {
    if (flags.sheet.empty() && !flags.stats) {
        throw_usage("nothing to do: give --sheet or --stats");
    }
    const scenes::SceneGenerator generator(flags.generator.options());
    if (!flags.sheet.empty()) write_sheet(generator, flags);
    if (flags.stats) print_stats(generator, flags);
}

}  // namespace

void add_scenes(CLI::App& app) {
    auto flags = std::make_shared<ScenesFlags>();
    CLI::App* command = app.add_subcommand("scenes",
                                           "Make synthetic pictures and clips with questions and answers\n"
                                           "Emoji, coloured shapes and signs over all kinds of backgrounds; "
                                           "the same seed, split and number give the "
                                           "same sample on every machine with the same fonts.");
    command->add_option("-N,--samples", flags->samples, "How many samples")
        ->type_name("N")
        ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 40))
        ->capture_default_str();
    command->add_option("--first", flags->first, "Number of the first one")
        ->type_name("N")
        ->capture_default_str();
    command->add_option("--sheet", flags->sheet, "Draw a contact sheet (PNG) of the samples")
        ->type_name("FILE");
    command->add_flag("--marks", flags->marks, "Draw the boxes of things and letters on the sheet");
    command->add_flag(
        "--stats", flags->stats,
        "Print the priors of the question types (how far one gets without looking) and the speed");
    command->add_flag("--json", flags->json, "Print --stats as JSON");
    flags->generator.add_to(*command);
    command->callback([flags] { run(*flags); });
}

}  // namespace llava_mini::tools
