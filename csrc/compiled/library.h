// Owns what a loop compiled for one run is made with: the headers of the loops, and the names under which it is called.
//
// Such a library has one loop for one run's shape and rule. Threads and signals are the module's.
#pragma once
#include "../core/functions.h"
#include "../cpu/fused.h"
#include "relu2.h"
#include "steps.h"
#include "sweeps.h"

#define FS_EXPORT extern "C" __attribute__((visibility("default")))

// Block: what runs some networks; made by Block(job, scratch). Given: the struct that crosses.
#define FS_COMPILED(Block, Given)                                                                       \
  FS_EXPORT fs::i64 fs_given() { return sizeof(Given); }                                                \
  FS_EXPORT void fs_report_to(void (*work)(fs::i64)) { fs::report_work = work; }                        \
  FS_EXPORT fs::i64 fs_bytes(const void* job) { return Block::bytes(*static_cast<const Given*>(job)); } \
  FS_EXPORT fs::i64 fs_side(const void* job) { return Block::side(*static_cast<const Given*>(job)); }   \
  FS_EXPORT void fs_run(const void* job, char* scratch, const fs::i64* positions, int networks) {       \
    Block(*static_cast<const Given*>(job), scratch).run(positions, networks);                           \
  }
