/*
 * can.h - can this be done on this machine, or what is missing?
 */
#ifndef PROGRAMS_STRESS_CAN_H
#define PROGRAMS_STRESS_CAN_H

#include <stdbool.h>

struct stress_options;

/** stress_can - may this be tried here? Return: true; or false, and why not, with what would change that */
bool stress_can(const struct stress_options *opts, char ret_why[static 200]);

#endif
