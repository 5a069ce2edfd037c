/*
 * plot.h - what a run found, as a picture
 */
#ifndef PROGRAMS_STRESS_PLOT_H
#define PROGRAMS_STRESS_PLOT_H

struct stress_options;
struct stress_result;

/** stress_plot - an SVG, by gnuplot. Return: 0, or -1 after saying why: gnuplot is not installed, it failed. */
int stress_plot(const struct stress_options *opts, const struct stress_result *r, const char *path);

#endif
