#include "trainer/run_log.h"

#include <fstream>
#include <map>

#include "core/error.h"

namespace llava_mini::trainer {

using nlohmann::ordered_json;

void RunLog::write(const ordered_json& entry) {
    if (active_) append(entry);
}

void RunLog::append(const ordered_json& entry) {
    const std::lock_guard lock(mutex_);
    std::ofstream file(file_, std::ios::app);
    file << entry.dump(-1, ' ', false, ordered_json::error_handler_t::replace) << '\n';
    if (!file.flush()) throw_system("{}: cannot be written", file_.string());
}

void RunLog::skipped(const std::string& source, const SkippedSample& sample) {
    {
        const std::lock_guard lock(mutex_);
        if (!seen_.emplace(source, sample.index).second) return;
    }
    append({{"event", "skipped"},
            {"source", source},
            {"index", sample.index},
            {"id", sample.id},
            {"reason", sample.reason}});
}

std::vector<std::pair<std::string, SkippedSample>> skipped_samples(const std::filesystem::path& log) {
    std::map<std::pair<std::string, uint64_t>, SkippedSample> found;
    std::ifstream file(log);
    for (std::string line; std::getline(file, line);) {
        if (line.find("\"skipped\"") == std::string::npos) continue;
        const auto entry = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
        if (!entry.is_object() || entry.value("event", "") != "skipped") continue;
        const auto index = entry.value("index", uint64_t{0});
        found[{entry.value("source", ""), index}] = {index, entry.value("id", ""), entry.value("reason", "")};
    }
    std::vector<std::pair<std::string, SkippedSample>> samples;
    for (auto& [key, sample] : found) samples.emplace_back(key.first, std::move(sample));
    return samples;
}

}  // namespace llava_mini::trainer
