// edge_run BUNDLE PROMPT: answers one prompt with the native engine. On the C ABI alone, so it shows how that is used.
#include <csignal>
#include <cstdio>
#include <memory>

#include "options.h"
#include "report.h"

namespace edge::runner {
namespace {

struct Close {
  void operator()(edge_runtime* runtime) const { edge_runtime_close(runtime); }
  void operator()(edge_session* session) const { edge_session_free(session); }
};

struct Output {
  std::string text;
  bool silent;
};

int show(void* user, const char* text, size_t length) {
  auto& output = *static_cast<Output*>(user);
  output.text.append(text, length);
  if (output.silent) return 0;
  // A reader that went away ends the answer.
  return std::fwrite(text, 1, length, stdout) == length && std::fflush(stdout) == 0 ? 0 : 1;
}

int failed(const std::string& message) {
  std::fprintf(stderr, "edge_run: %s\n", message.c_str());
  return 1;
}

int answer(const Options& options) {
  edge_error error;
  edge_runtime* opened = nullptr;
  if (edge_runtime_open(options.bundle.c_str(), &options.runtime, &opened, &error) != EDGE_OK) {
    return failed(error.message);
  }
  const std::unique_ptr<edge_runtime, Close> runtime(opened);
  edge_session* made = nullptr;
  if (edge_session_new(opened, &made, &error) != EDGE_OK) return failed(error.message);
  const std::unique_ptr<edge_session, Close> session(made);
  Output output{.text = {}, .silent = options.json};
  if (edge_session_generate(made, options.prompt.data(), options.prompt.size(), &options.generate, show, &output,
                            &error) != EDGE_OK) {
    return failed(error.message);
  }
  Report report{.text = output.text, .info = {}, .stats = {}};
  report.info.size = sizeof report.info;
  report.stats.size = sizeof report.stats;
  edge_runtime_get_info(opened, &report.info, nullptr);
  edge_session_get_stats(made, &report.stats, nullptr);
  std::printf("%s\n", options.json ? json_of(report).c_str() : "");
  if (options.stats) std::fputs(lines_of(report).c_str(), stderr);
  return std::fflush(stdout) == 0 ? 0 : failed("standard output cannot be written");
}

}  // namespace
}  // namespace edge::runner

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // writing says so instead
  edge::runner::Options options;
  std::string wrong;
  edge::runner::parse(argc, argv, options, wrong);
  if (options.help) {
    std::fputs(edge::runner::kUsage, stdout);
    return 0;
  }
  if (!wrong.empty()) {
    std::fprintf(stderr, "edge_run: %s\n", wrong.c_str());
    return 2;
  }
  return edge::runner::answer(options);
}
