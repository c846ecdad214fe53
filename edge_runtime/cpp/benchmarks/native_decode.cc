// Decode and prefill of the paper's anchors with random weights (Pouransari et al. 2025, section 3), with and without
// memory, beside what this machine reads from memory a second.
//   native_decode [160M|410M] [f16|i8|i4] [threads] [tokens]
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "edge_runtime/lease_registry.h"
#include "edge_runtime/native.h"
#include "edge_runtime/native_writer.h"

namespace edge::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Of several runs of the same: the middle one, the best, which other work on the machine has disturbed least, and the
// mean, in which every disturbance counts.
struct Seconds {
  double median = 0;
  double best = 0;
  double mean = 0;
};

Seconds of_times(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  const double sum = std::accumulate(times.begin(), times.end(), 0.0);
  return {times[times.size() / 2], times.front(), sum / static_cast<double>(times.size())};
}

void print(const std::string& what, std::size_t tokens, const Seconds& seconds) {
  const auto rate = [&](double time) { return static_cast<double>(tokens) / time; };
  std::printf("%-24s %7.1f tok/s, %7.1f at best, %7.1f on average; %.2f ms\n", what.c_str(), rate(seconds.median),
              rate(seconds.best), rate(seconds.mean), 1e3 * seconds.median);
}

NativeConfig anchor(const std::string& name) {
  NativeConfig config;
  if (name == "410M") {
    config = {24, 1024, 16, 16, 64, 2816, 50432, 2048, true, 1e-5F, QkNorm::kWidth, false, {}, {}, {}};
  } else {
    config = {35, 512, 12, 12, 32, 2048, 50432, 2048, true, 1e-5F, QkNorm::kWidth, true, {}, {}, {}};
  }
  config.set_layers(1e5F);
  config.memory_layers.resize(config.layers);
  std::iota(config.memory_layers.begin(), config.memory_layers.end(), 0U);
  return config;
}

template <typename T>
T take(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().message.c_str());
    std::exit(1);
  }
  return std::move(*result);
}
void check(const Status& status) { take(status ? Result<int>(0) : Result<int>(tl::make_unexpected(status.error()))); }

void write(const std::string& path, const NativeConfig& config, DType dtype) {
  NativeWriter writer = take(NativeWriter::create(path, config, dtype));
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 1);
  const auto tensors = writer.tensors();
  std::vector<float> row;
  for (const NativeTensor& tensor : tensors) {
    row.assign(tensor.columns(), 1);
    const float scale = 1 / std::sqrt(static_cast<float>(tensor.columns()));
    if (tensor.shape.size() > 1) std::generate(row.begin(), row.end(), [&] { return scale * normal(random); });
    for (std::uint64_t i = 0; i < tensor.rows(); ++i) {
      std::rotate(row.begin(), row.begin() + 1, row.end());
      check(writer.append(row));
    }
  }
  check(writer.finish());
}

// Blocks that are there: three levels of 256, 64 and 16 rows.
class Resident final : public MemorySource {
 public:
  Resident(const NativeConfig& config, DType dtype) : layers_(config.layers), d_(config.d_model), dtype_(dtype) {
    const std::vector<std::size_t> levels =
        d_ == 512 ? std::vector<std::size_t>{256, 64, 16} : std::vector<std::size_t>{512, 128, 32};
    // As bytes of f32 and of f16 about 0.0007: sums that underflow would be slow.
    const std::byte scale{dtype == DType::kI8 ? 0x3a : 0x11};
    for (std::size_t i = 0; i < layers_; ++i) {
      for (const std::size_t r : levels) {
        blocks_.push_back({std::vector<std::byte>(3 * r * row_bytes(dtype, d_), std::byte{0x37}),
                           std::vector<std::byte>(3 * r * row_scale_bytes(dtype, d_), scale), r});
      }
    }
  }
  Status layer(std::uint32_t layer, std::vector<MemoryRows>& rows) override {
    rows.clear();
    for (std::size_t i = 0; i < 3; ++i) {
      const Block& block = blocks_[layer * 3 + i];
      rows.push_back({dtype_, block.rows, block.data.data(), block.scales.data()});
    }
    return {};
  }
  std::uint32_t layers() const override { return layers_; }
  std::uint32_t d_model() const override { return d_; }

 private:
  struct Block {
    std::vector<std::byte> data;
    std::vector<std::byte> scales;
    std::size_t rows;
  };
  std::uint32_t layers_;
  std::uint32_t d_;
  DType dtype_;
  std::vector<Block> blocks_;
};

// Bytes a second that the threads read together, the best of several passes.
double read_bandwidth(std::size_t threads) {
  constexpr std::size_t kWords = std::size_t{64} << 20U >> 3U;
  std::vector<std::vector<std::uint64_t>> regions(threads, std::vector<std::uint64_t>(kWords, 1));
  double best = 0;
  for (int pass = 0; pass < 5; ++pass) {
    const auto start = Clock::now();
    std::vector<std::thread> team;
    std::vector<std::uint64_t> sums(threads * 8);
    for (std::size_t i = 0; i < threads; ++i) {
      team.emplace_back([&, i] {
        std::uint64_t lanes[16] = {};
        for (std::size_t w = 0; w < kWords; w += 16) {
          for (std::size_t lane = 0; lane < 16; ++lane) lanes[lane] += regions[i][w + lane];
        }
        sums[i * 8] = std::accumulate(std::begin(lanes), std::end(lanes), std::uint64_t{0});
      });
    }
    for (std::thread& thread : team) thread.join();
    if (sums[0] != kWords) std::abort();
    best = std::max(best, static_cast<double>(threads * kWords * 8) / seconds_since(start));
  }
  return best;
}

Seconds decode(NativeContext& context, std::int64_t memory, int tokens, std::size_t prompt) {
  context.reset();
  const std::vector<std::int64_t> ids(prompt, 7);
  take(context.forward(ids, memory));
  std::vector<double> times;
  for (int i = 0; i < tokens; ++i) {
    const std::int64_t token = 11 + i;
    const auto start = Clock::now();
    take(context.forward({&token, 1}, memory));
    times.push_back(seconds_since(start));
  }
  return of_times(std::move(times));
}

Seconds prefill(NativeContext& context, std::int64_t memory, std::size_t length) {
  const std::vector<std::int64_t> ids(length, 7);
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) {
    context.reset();
    const auto start = Clock::now();
    take(context.forward(ids, memory));
    times.push_back(seconds_since(start));
  }
  return of_times(std::move(times));
}

int run(int argc, char** argv) {
  const std::string name = argc > 1 ? argv[1] : "160M";
  const DType dtype = parse_dtype(argc > 2 ? argv[2] : "i4").value_or(DType::kI4);
  const std::size_t threads = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 2;
  const int tokens = argc > 4 ? std::atoi(argv[4]) : 200;
  const NativeConfig config = anchor(name);
  const auto path = std::filesystem::temp_directory_path() / ("edge-native-" + std::to_string(::getpid()));
  write(path, config, dtype);
  const auto bytes = static_cast<double>(std::filesystem::file_size(path));
  NativeContext context(take(NativeModel::open(path, config, threads)));
  std::filesystem::remove(path);
  const double bandwidth = read_bandwidth(threads);
  std::printf("%s %s, %.1f MB, %zu threads; memory reads %.1f GB/s\n", name.c_str(),
              std::string(edge::name(dtype)).c_str(), bytes / 1e6, threads, bandwidth / 1e9);
  const Seconds plain = decode(context, 0, tokens, 8);
  print("decode", 1, plain);
  std::printf("  which reads %.1f GB/s, %.1f at best\n", bytes / plain.median / 1e9, bytes / plain.best / 1e9);
  print("decode after 1,000", 1, decode(context, 0, tokens, 1000));
  for (const DType of_memory : {DType::kI4, DType::kI8}) {
    const auto source = std::make_shared<Resident>(config, of_memory);
    const std::int64_t handle = register_source(source);
    print("decode with " + std::string(edge::name(of_memory)) + " memory", 1, decode(context, handle, tokens, 8));
    unregister_source(handle);
  }
  for (const std::size_t length : {std::size_t{128}, std::size_t{512}}) {
    print("prefill of " + std::to_string(length), length, prefill(context, 0, length));
  }
  return 0;
}

}  // namespace
}  // namespace edge::bench

int main(int argc, char** argv) { return edge::bench::run(argc, argv); }
