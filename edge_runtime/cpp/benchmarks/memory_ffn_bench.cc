// memory_ffn over paths of a bank that no cache holds, beside this machine's read bandwidth measured in the same run.
//
//   memory_ffn_bench [--d 512] [--layers 35] [--rows 256,64,16] [--threads 2] [--tokens 1,16,128] [--runs 7]
//                    [--dtypes f32,f16,bf16,i8,i4] [--isas <all of this machine>]
//
// Each run takes every case in turn, so that a disturbance meets all of them alike. It times windows of a few layers,
// and of a few megabytes of plain reading, and keeps the fastest, as other programs only ever add time; the table shows
// the medians of the runs.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "compiler_vectorised.h"
#include "edge_runtime/dtype.h"
#include "edge_runtime/isa.h"
#include "edge_runtime/memory_ffn.h"
#include "spin_team.h"

namespace edge::bench {
namespace {

constexpr std::size_t kBeyondCaches = 256U << 20U;
constexpr std::size_t kWindowLayers = 5;
constexpr std::size_t kSlowWindows = 4;  // of the scalar reference and the compiler's kernel, a layer each
constexpr std::size_t kReadPasses = 3;
constexpr std::size_t kWindowWords = 524288;  // of plain reading: 4 MiB

struct Options {
  std::size_t d = 512;
  std::size_t layers = 35;
  std::size_t threads = 2;
  std::size_t runs = 7;
  std::vector<std::size_t> rows = {256, 64, 16};
  std::vector<std::size_t> tokens = {1, 16, 128};
  std::vector<DType> dtypes = {DType::kF32, DType::kF16, DType::kBF16, DType::kI8, DType::kI4};
  std::vector<Isa> isas = {supported_isas().begin() + 1, supported_isas().end()};
};

[[noreturn]] void stop(const std::string& message) {
  std::fprintf(stderr, "memory_ffn_bench: %s\n", message.c_str());
  std::exit(2);
}

template <typename T, typename Parse>
std::vector<T> parse_list(const std::string& text, const Parse& parse) {
  std::vector<T> values;
  std::istringstream stream(text);
  for (std::string item; std::getline(stream, item, ',');) {
    const auto value = parse(item);
    if (!value) stop("cannot read '" + item + "'");
    values.push_back(*value);
  }
  return values;
}

std::optional<std::size_t> parse_count(const std::string& text) {
  char* end = nullptr;
  const unsigned long long value = std::strtoull(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || value == 0) return std::nullopt;
  return value;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string key = argv[i];
    if (i + 1 == argc) stop(key + " needs a value");
    const std::string value = argv[i + 1];
    const auto one = [&] { return parse_list<std::size_t>(value, parse_count).at(0); };
    if (key == "--d")
      options.d = one();
    else if (key == "--layers")
      options.layers = one();
    else if (key == "--threads")
      options.threads = one();
    else if (key == "--runs")
      options.runs = one();
    else if (key == "--rows")
      options.rows = parse_list<std::size_t>(value, parse_count);
    else if (key == "--tokens")
      options.tokens = parse_list<std::size_t>(value, parse_count);
    else if (key == "--dtypes")
      options.dtypes = parse_list<DType>(value, parse_dtype);
    else if (key == "--isas")
      options.isas = parse_list<Isa>(value, parse_isa);
    else
      stop("unknown option " + key);
  }
  if (options.d % kI4Group != 0) stop("--d must be a multiple of 32");
  return options;
}

// Paths of one dtype: each level's block as the bank lays it out, scales of all layers first, then layer after layer.
class Paths {
 public:
  Paths(DType dtype, const Options& options) : dtype_(dtype), options_(options) {
    std::size_t path_bytes = 0;
    for (const std::size_t r : options.rows) path_bytes += block_bytes(r);
    count_ = kBeyondCaches / path_bytes + 1;
    path_bytes_ = path_bytes;
    memory_.resize(count_ * path_bytes + kPage);
    base_ = memory_.data() + (kPage - reinterpret_cast<std::uintptr_t>(memory_.data()) % kPage);
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.05F);
    std::vector<float> row(options.d);
    for (const MemoryRows& rows : all_rows(0)) {
      for (std::size_t i = 0; i < 3 * rows.rows; ++i) {
        for (float& value : row) value = normal(random);
        (void)quantize_row(dtype, row, const_cast<std::byte*>(rows.data) + i * row_bytes(dtype, options.d),
                           const_cast<std::byte*>(rows.scales) + i * row_scale_bytes(dtype, options.d));
      }
    }
    for (std::size_t path = 1; path < count_; ++path) std::memcpy(base_ + path * path_bytes_, base_, path_bytes_);
  }

  std::size_t count() const { return count_; }
  // What one layer of a path reads.
  std::size_t layer_bytes() const {
    std::size_t bytes = 0;
    for (const std::size_t r : options_.rows) {
      bytes += 3 * r * (row_bytes(dtype_, options_.d) + row_scale_bytes(dtype_, options_.d));
    }
    return bytes;
  }
  void layer(std::size_t path, std::size_t layer, std::vector<MemoryRows>& rows) const {
    rows.clear();
    const std::byte* block = base_ + path * path_bytes_;
    for (const std::size_t r : options_.rows) {
      const std::size_t scales = 3 * r * row_scale_bytes(dtype_, options_.d);
      const std::size_t data = 3 * r * row_bytes(dtype_, options_.d);
      rows.push_back({dtype_, r, block + scales * options_.layers + layer * data, block + layer * scales});
      block += block_bytes(r);
    }
  }

 private:
  std::size_t block_bytes(std::size_t r) const {
    const std::size_t bytes =
        options_.layers * 3 * r * (row_bytes(dtype_, options_.d) + row_scale_bytes(dtype_, options_.d));
    return (bytes + kPage - 1) / kPage * kPage;
  }
  std::vector<MemoryRows> all_rows(std::size_t path) const {
    std::vector<MemoryRows> all;
    std::vector<MemoryRows> rows;
    for (std::size_t i = 0; i < options_.layers; ++i) {
      layer(path, i, rows);
      all.insert(all.end(), rows.begin(), rows.end());
    }
    return all;
  }

  DType dtype_;
  const Options& options_;
  std::size_t count_ = 0;
  std::size_t path_bytes_ = 0;
  std::vector<std::byte> memory_;
  std::byte* base_ = nullptr;
};

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Reads memory as fast as it goes: long runs of whole lines, asked for ahead of time.
std::uint64_t read_words(std::span<const std::uint64_t> memory, Parallel& team) {
  constexpr std::size_t kWords = 16384;  // of a task
  constexpr std::size_t kAhead = 256;
  std::atomic<std::uint64_t> total = 0;
  team.run(memory.size() / kWords, [&](std::size_t index) {
    const std::uint64_t* from = memory.data() + index * kWords;
    std::uint64_t sums[8] = {};
    for (std::size_t i = 0; i < kWords; i += 8) {
      __builtin_prefetch(from + i + kAhead);
      for (std::size_t k = 0; k < 8; ++k) sums[k] += from[i + k];
    }
    for (const std::uint64_t sum : sums) total += sum;
  });
  return total;
}

struct Case {
  const Paths* paths;
  DType dtype;
  std::size_t tokens;
  std::optional<Isa> isa;  // none: the compiler's kernel
  std::size_t threads;
  std::vector<double> layer_seconds = {};
};

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options), team_(options.threads), memory_(kBeyondCaches / 8, 1) {
    for (const DType dtype : options.dtypes) paths_.push_back(std::make_unique<Paths>(dtype, options));
    for (std::size_t i = 0; i < options.dtypes.size(); ++i) {
      for (const std::size_t tokens : options.tokens) {
        const Case one{paths_[i].get(), options.dtypes[i], tokens, std::nullopt, 1};
        cases_.push_back(one);
        cases_.push_back({one.paths, one.dtype, tokens, Isa::kScalar, 1});
        for (const Isa isa : options.isas) {
          for (const std::size_t threads :
               options.threads > 1 ? std::vector<std::size_t>{1, options.threads} : std::vector<std::size_t>{1}) {
            cases_.push_back({one.paths, one.dtype, tokens, isa, threads});
          }
        }
      }
    }
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    x_.resize(*std::max_element(options.tokens.begin(), options.tokens.end()) * options.d);
    for (float& value : x_) value = normal(random);
    y_.resize(x_.size());
  }

  void run() {
    for (std::size_t run = 0; run < options_.runs; ++run) {
      read_single_.push_back(fastest_read(serial()));
      read_team_.push_back(fastest_read(team_));
      for (Case& one : cases_) measure(one);
    }
  }

  void print() const {
    const double single = 1e-9 * kWindowWords * 8 / median(read_single_);
    const double all = 1e-9 * kWindowWords * 8 / median(read_team_);
    std::printf("d %zu, %zu layers, rows", options_.d, options_.layers);
    for (const std::size_t r : options_.rows) std::printf(" %zu", r);
    std::printf("; medians of %zu runs\nread bandwidth: %.1f GB/s with 1 thread, %.1f GB/s with %zu\n\n", options_.runs,
                single, all, options_.threads);
    std::printf(
        "| dtype | T | kernel | threads | us/layer | ms/%zu layers | GB/s | of bandwidth | x compiler | x scalar |\n"
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|\n",
        options_.layers);
    double compiler = 0;
    double scalar = 0;
    for (const Case& one : cases_) {
      const double seconds = median(one.layer_seconds);
      if (!one.isa) compiler = seconds;
      if (one.isa == Isa::kScalar) scalar = seconds;
      if (!one.isa || one.isa == Isa::kScalar) continue;
      const double rate = static_cast<double>(one.paths->layer_bytes()) / seconds * 1e-9;
      std::printf("| %s | %zu | %s | %zu | %.2f | %.3f | %.1f | %.0f%% | %.1f | %.1f |\n",
                  std::string(name(one.dtype)).c_str(), one.tokens, std::string(name(*one.isa)).c_str(), one.threads,
                  seconds * 1e6, seconds * static_cast<double>(options_.layers) * 1e3, rate,
                  100 * rate / (one.threads == 1 ? single : all), compiler / seconds, scalar / seconds);
    }
  }

 private:
  // Seconds for a window.
  double fastest_read(Parallel& threads) {
    double fastest = 1e9;
    for (std::size_t window = 0; window < kReadPasses * memory_.size() / kWindowWords; ++window) {
      const std::size_t at = window * kWindowWords % memory_.size();
      fastest = std::min(
          fastest, seconds_of([&] { sink_ += read_words(std::span(memory_).subspan(at, kWindowWords), threads); }));
    }
    return fastest;
  }

  void measure(Case& one) {
    const bool slow = !one.isa || *one.isa == Isa::kScalar;
    if (one.isa) (void)set_isa(*one.isa);
    const std::size_t window = slow ? 1 : kWindowLayers;
    const std::size_t layers = slow ? std::min(kSlowWindows, options_.layers) : options_.layers;
    const std::size_t paths = slow || one.tokens > 16 ? 1 : one.paths->count();
    Parallel& threads = one.threads == 1 ? serial() : static_cast<Parallel&>(team_);
    double fastest = 1e9;
    for (std::size_t path = 0; path < paths; ++path) {
      for (std::size_t layer = 0; layer < layers; layer += window) {
        const std::size_t end = std::min(layer + window, layers);
        const double seconds = seconds_of([&] {
          for (std::size_t at = layer; at < end; ++at)
            compute(one, (path + next_path_) % one.paths->count(), at, threads);
        });
        fastest = std::min(fastest, seconds / static_cast<double>(end - layer));
      }
    }
    ++next_path_;
    one.layer_seconds.push_back(fastest);
  }

  void compute(const Case& one, std::size_t path, std::size_t layer, Parallel& threads) {
    one.paths->layer(path, layer, rows_);
    if (!one.isa) {
      compiler_vectorised(rows_, x_.data(), one.tokens, options_.d, y_.data());
      return;
    }
    scratch_.resize(std::max(scratch_.size(), memory_ffn_scratch(rows_, one.tokens, options_.d)));
    memory_ffn(rows_, x_.data(), one.tokens, options_.d, y_.data(), scratch_, threads);
  }

  const Options& options_;
  SpinTeam team_;
  std::vector<std::uint64_t> memory_;
  std::vector<std::unique_ptr<Paths>> paths_;
  std::vector<Case> cases_;
  std::vector<double> read_single_;
  std::vector<double> read_team_;
  std::vector<MemoryRows> rows_;
  std::vector<float> x_;
  std::vector<float> y_;
  std::vector<float> scratch_;
  std::size_t next_path_ = 0;
  std::atomic<std::uint64_t> sink_ = 0;  // what was read is used
};

}  // namespace
}  // namespace edge::bench

int main(int argc, char** argv) {
  const edge::bench::Options options = edge::bench::parse(argc, argv);
  edge::bench::Bench bench(options);
  bench.run();
  bench.print();
  return 0;
}
