// Owns what units that talk to Python include before all else: pybind11, compiled quickly, since calls of it are cold.
// setup.py puts it in front of them, compiled once for all.
#ifndef FASTSGD_PYTHON_H
#define FASTSGD_PYTHON_H
#include <omp.h>

#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>
#pragma GCC push_options
#pragma GCC optimize("O1")
#include <pybind11/numpy.h>
#pragma GCC pop_options
#endif
