// Asks a question about a picture through the C++ API:
//   example-ask MODEL_FOLDER PICTURE "What is in this picture?"
#include <iostream>

#include "llava_mini/llava_mini.hpp"

int main(int argc, char** argv) {
    if (argc != 4) {
        std::cerr << "usage: example-ask MODEL_FOLDER PICTURE QUESTION\n";
        return 2;
    }
    try {
        // A model may be shared by any number of sessions, in several threads.
        const auto model = llava_mini::Model::load({.model = argv[1]});
        llava_mini::Session session(model);
        session.add_image(llava_mini::Model::read_picture(argv[2]));

        // The callback gets the answer piece by piece; returning false would stop it.
        const auto print = [](std::string_view text) {
            std::cout << text << std::flush;
            return true;
        };
        llava_mini::Answer answer = session.ask(argv[3], {.max_tokens = 64}, print);
        std::cout << "\n";

        // The picture and the first turn are computed already: only the new question's tokens are.
        answer = session.ask("Are you sure?", {.max_tokens = 16}, print);
        std::cout << "\n";
        std::cerr << answer.cached_tokens << " of " << answer.prompt_tokens << " tokens were taken over\n";
    } catch (const llava_mini::Error& error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
