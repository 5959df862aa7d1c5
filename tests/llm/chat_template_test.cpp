#include "llm/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "llava_mini/error.hpp"
#include "llm/models.h"
#include "support/test_data.h"

namespace llava_mini {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kSystemPrompt =
    "You are a helpful language and vision assistant. You are able to understand the visual content that the "
    "user "
    "provides, and assist the user with a variety of tasks using natural language.";

std::vector<ChatMessage> golden_messages(const nlohmann::json& golden_case) {
    std::vector<ChatMessage> messages = {{"system", kSystemPrompt}};
    for (const auto& turn : golden_case.at("turns")) {
        messages.push_back({"user", turn[0]});
        if (!turn[1].is_null()) messages.push_back({"assistant", turn[1]});
    }
    return messages;
}

std::string render(const std::string& source, std::vector<ChatMessage> messages = {{"user", "hi"}},
                   bool generation_prompt = true) {
    return ChatTemplate(source, "<s>", "</s>").render(messages, generation_prompt);
}

std::string error_of(const std::string& source) {
    try {
        render(source);
    } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kInput);
        EXPECT_THAT(error.what(), Not(HasSubstr("\n")));
        return error.what();
    }
    return "no error";
}

TEST(ChatTemplate, RendersTheRecordedPrompts) {
    const auto manifest = nlohmann::json::parse(std::ifstream(test::golden_path("manifest.json")));
    const ChatTemplate chat_template(*test::tiny_model());
    int checked = 0;
    for (const auto& golden_case : manifest.at("cases")) {
        const std::string style = golden_case.at("prompt_style");
        if (style == "prompt_raw") continue;
        const bool generation_prompt = style == "prompt_training";
        EXPECT_EQ(chat_template.render(golden_messages(golden_case), generation_prompt),
                  golden_case.at("prompt_text").get<std::string>())
            << golden_case.at("name");
        ++checked;
    }
    EXPECT_GE(checked, 9);
}

TEST(ChatTemplate, GivesBeginAndEndToken) {
    EXPECT_EQ(render("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}"), "<s>hi</s>");
}

TEST(ChatTemplate, TrimsBlocksAsHuggingFaceDoes) {
    EXPECT_EQ(
        render("{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}\nend"),
        "hi\nend");
}

TEST(ChatTemplate, DateFallsBackSinceStrftimeIsUndefined) {
    EXPECT_EQ(
        render("{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}26 Jul 2024{% endif %}"),
        "26 Jul 2024");
}

TEST(ChatTemplate, MacrosAndNamespacesWork) {
    EXPECT_EQ(render("{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{{ twice(messages[0].content) }}"),
              "hihi");
    EXPECT_EQ(
        render("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
               "{{ ns.n }}"),
        "1");
}

TEST(ChatTemplate, RefusalOfTheTemplateIsAnError) {
    EXPECT_THAT(error_of("{{ raise_exception('roles must alternate') }}"), HasSubstr("roles must alternate"));
}

TEST(ChatTemplate, BrokenTemplatesAreErrors) {
    for (const char* source :
         {"{% if true %}", "{{ 1 + }}", "{{ undefined_function() }}", "{% nothing %}", "{{",
          "{{ 'a' | nothing }}", "{% endif %}", "{{ strftime_now('%Y') }}", "{% break %}", "{{ \"\\"}) {
        EXPECT_THAT(error_of(source), HasSubstr("chat template: ")) << source;
    }
}

TEST(ChatTemplate, CannotOverflowTheStack) {
    const auto repeat = [](std::string_view text, int n) {
        std::string all;
        for (int i = 0; i < n; ++i) all += text;
        return all;
    };
    for (const std::string& source : {
             "{{ " + repeat("(", 20000) + "1" + repeat(")", 20000) + " }}",
             "{{ " + repeat("[", 20000) + repeat("]", 20000) + " }}",
             "{{ " + repeat("not ", 20000) + "true }}",
             "{{ 1" + repeat(" + 1", 20000) + " }}",
             "{{ 'a'" + repeat(" | trim", 20000) + " }}",
             repeat("{% if true %}", 20000) + repeat("{% endif %}", 20000),
             "{% if false %}" + repeat("{% elif false %}", 20000) + "{% endif %}",
             repeat("{% set x %}", 20000) + repeat("{% endset %}", 20000),
             std::string("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
             std::string("{% macro f(g) %}{{ g(g) }}{% endmacro %}{{ f(f) }}"),
             std::string(
                 "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}"),
         }) {
        EXPECT_THAT(error_of(source), HasSubstr("too deeply")) << source.substr(0, 60);
    }
    // Far from too deep: what follows many finished blocks.
    EXPECT_EQ(render(repeat("{% if false %}a{% elif true %}b{% else %}c{% endif %}", 300)), repeat("b", 300));
}

TEST(ChatTemplate, OneTemplateServesManyThreads) {
    const ChatTemplate chat_template(*test::tiny_model());
    const std::vector<ChatMessage> messages = {{"system", "s"}, {"user", "q"}};
    const std::string expected = chat_template.render(messages, true);
    std::vector<std::string> results(4);
    std::vector<std::thread> threads;
    for (std::string& result : results) {
        threads.emplace_back([&] {
            for (int i = 0; i < 20; ++i) result = chat_template.render(messages, true);
        });
    }
    for (std::thread& thread : threads) thread.join();
    for (const std::string& result : results) EXPECT_EQ(result, expected);
}

TEST(ChatTemplate, ModelWithoutTemplateIsAnError) {
    const test::TempDir dir;
    test::write_edited_gguf(dir / "bare.gguf",
                            [](gguf_context* gguf) { gguf_remove_key(gguf, "tokenizer.chat_template"); });
    const LanguageModel model(dir / "bare.gguf");
    EXPECT_THROW(ChatTemplate{model}, Error);
}

}  // namespace
}  // namespace llava_mini
