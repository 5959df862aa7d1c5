// Files written aside and renamed: whole or not at all, and nothing but a regular file is ever replaced.
#include "core/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "llava_mini/error.hpp"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using test::TempDir;
using testing::HasSubstr;

std::string text_of(const std::filesystem::path& path) {
    return read_text_file(path, 1 << 20);
}

size_t entries(const std::filesystem::path& folder) {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

std::string error_of_writing(const std::filesystem::path& path) {
    try {
        AtomicFile file(path);
    } catch (const Error& error) {
        return error.what();
    }
    return "no error";
}

TEST(AtomicFile, WithoutCommitEverythingStays) {
    const TempDir dir;
    dir.write("a", "before");
    {
        AtomicFile file(dir / "a");
        file.write("after");
    }
    EXPECT_EQ(text_of(dir / "a"), "before");
    EXPECT_EQ(entries(dir.path()), 1U);
    AtomicFile file(dir / "new/folder/b");
    file.write("one ");
    file.write("two");
    EXPECT_EQ(file.size(), 7U);
    file.commit();
    EXPECT_EQ(text_of(dir / "new/folder/b"), "one two");
    EXPECT_EQ(entries(dir / "new/folder"), 1U);
}

TEST(AtomicFile, TakesOverWhatAKilledProcessLeft) {
    const TempDir dir;
    dir.write("a.aside", "half of a model that nobody will finish");
    AtomicFile file(dir / "a");
    file.write("whole");
    file.commit();
    EXPECT_EQ(text_of(dir / "a"), "whole");
    EXPECT_EQ(entries(dir.path()), 1U);
}

TEST(AtomicFile, LeavesAnInterruptedRunsAnswersAlone) {
    // FILE.partial is where longer work (eval) gathers what an interrupted run is taken up from.
    const TempDir dir;
    dir.write("a.partial", "answers so far");
    AtomicFile(dir / "a").write("not committed");
    AtomicFile file(dir / "a");
    file.commit();
    EXPECT_EQ(text_of(dir / "a.partial"), "answers so far");
}

TEST(AtomicFile, TwoWritersDoNotMix) {
    const TempDir dir;
    AtomicFile file(dir / "a");
    file.write("first");
    EXPECT_THAT(error_of_writing(dir / "a"), HasSubstr("another process is writing it"));
    file.commit();
    EXPECT_EQ(text_of(dir / "a"), "first");
    EXPECT_EQ(error_of_writing(dir / "a"), "no error");
}

TEST(AtomicFile, LinksStayAndTheirTargetsAreReplaced) {
    const TempDir dir;
    dir.write("target", "old");
    std::filesystem::create_symlink("target", dir / "link");
    AtomicFile file(dir / "link");
    file.write("new");
    file.commit();
    EXPECT_TRUE(std::filesystem::is_symlink(dir / "link"));
    EXPECT_EQ(text_of(dir / "target"), "new");
}

TEST(AtomicFile, DevicesPipesAndFoldersAreRefused) {
    const TempDir dir;
    ASSERT_EQ(mkfifo((dir / "pipe").c_str(), 0600), 0);
    EXPECT_THAT(error_of_writing(dir / "pipe"), HasSubstr("found a named pipe"));
    EXPECT_THAT(error_of_writing(dir.path()), HasSubstr("found a directory"));
    EXPECT_THAT(error_of_writing("/dev/null"), HasSubstr("/dev/null: cannot be written"));
    EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
    EXPECT_EQ(entries(dir.path()), 1U);
}

}  // namespace
}  // namespace llava_mini
