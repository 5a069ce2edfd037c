#include "programs/stress/plot.h"

#include "programs/cli/complain.h"
#include "programs/cli/human.h"
#include "programs/stress/latency.h"
#include "programs/stress/options.h"
#include "programs/stress/report.h"
#include "programs/stress/result.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* gnuplot draws: above, latency over time with the rate of faults behind it; below, its distribution. */

static const char script_begin[] =
        "set encoding utf8\n"
        "set terminal svg size 1000,840 dynamic enhanced font 'sans-serif,13' background '#ffffff'\n"
        "set output \"%s\"\n"
        "set multiplot\n"
        "set border 11 lc rgb '#888888'\n"
        "set tics nomirror out scale 0.5 textcolor rgb '#333333'\n"
        "set grid ytics lc rgb '#e4e4e4' lw 1 dt solid\n"
        "set lmargin at screen 0.095\nset rmargin at screen 0.915\n"
        "set key horizontal maxrows 1 samplen 2 width -6 textcolor rgb '#333333'\n"
        "set logscale y\n"
        "set format y '%%.0s %%cs'\n";

static const char script_over_time[] =
        "set label 1 \"%s\" noenhanced at screen 0.02,0.972 font ',15'\n"
        "set label 2 \"%s\" noenhanced at screen 0.02,0.944 tc rgb '#666666'\n"
        "set tmargin at screen 0.875\nset bmargin at screen 0.53\n"
        "set xrange [0:%g]\nset xlabel 'seconds' offset 0,0.4\n"
        "set ylabel 'wait for a page' offset 0.5,0\n"
        "set y2label 'faults a second' offset -0.5,0\n"
        "set y2tics textcolor rgb '#333333'\n"
        "set format y2 '%%.0s%%c'\nset y2range [0:*]\n"
        "set key at screen 0.915,0.905 right\n"
        "plot $over using 1:2 axes x1y2 with filledcurves y2=0 lc rgb '#e8eef7' title 'faults/s (right)', \\\n"
        " $over using 1:3 with lines lw 2 lc rgb '#1f4e9c' title 'median', \\\n"
        " $over using 1:4 with lines lw 1.5 lc rgb '#e08e2b' title 'p99', \\\n"
        " $over using 1:5 with lines lw 1.5 lc rgb '#c0504d' title 'p99.9', \\\n"
        " $over using 1:6 with lines lw 1 lc rgb '#dcb0ac' title 'longest'\n";

/* With a line where the median is, and the other two. */
static const char script_distribution[] =
        "unset label 1\nunset label 2\nunset y2label\nunset y2tics\nunset logscale y\nset format y '%%.0f %%%%'\n"
        "set tmargin at screen 0.415\nset bmargin at screen 0.075\n"
        "set logscale x\nset xrange [%g:%g]\nset format x '%%.0s %%cs'\n"
        "set xlabel 'wait for a page' offset 0,0.4\n"
        "set ylabel 'share of the waits, by doubling'\nset yrange [0:*]\n"
        "set y2range [0:100]\nset y2tics 25 textcolor rgb '#333333'\n"
        "set format y2 '%%.0f %%%%'\nset y2label 'so long or less'\n"
        "set key at screen 0.915,0.445 right width 0\n"
        "do for [i = 1:3] {\n"
        " t = real(word('%g %g %g', i))\n"
        " c = word('#1f4e9c #e08e2b #c0504d', i)\n"
        " set arrow i from t, graph 0 to t, graph 1 nohead lc rgb c lw 1 dt 2 front\n"
        " set label i word('median p99 p99.9', i) at t, graph 0.965 offset 0.4,0 tc rgb c font ',11' front\n"
        "}\n"
        "plot $spread using 1:($2*log(2)/log($4)) \\\n"
        " with fillsteps fs solid 0.6 noborder lc rgb '#7fa3d4' title 'share', \\\n"
        " $spread using 1:3 axes x1y2 with lines lw 2 lc rgb '#444444' title 'so long or less (right)'\n"
        "unset multiplot\n";

/* Inside double quotes of gnuplot. */
static void put_quoted(char *buf, size_t size, const char *text)
{
	size_t len = 0;

	for (; *text && len + 3 < size; text++) {
		if (*text == '"' || *text == '\\' || *text == '`')
			buf[len++] = '\\';
		buf[len++] = *text;
	}
	buf[len] = '\0';
}

static void write_over_time(FILE *f, const struct stress_result *r)
{
	fputs("$over << END\n", f);
	for (uint32_t i = 0; i < r->interval_count; i++) {
		const struct stress_interval *v = &r->intervals[i];

		if (v->count)
			fprintf(f, "%g %" PRIu32 " %g %g %g %g\n", v->at_ms / 1e3, v->faults_rate, v->p50_ns / 1e9,
			        v->p99_ns / 1e9, v->p999_ns / 1e9, v->max_ns / 1e9);
	}
	fputs("END\n", f);
}

/* Where a step begins; that of LATENCY_OCTAVES * LATENCY_STEPS is the end of the last. */
static double step_begin_ns(unsigned i)
{
	return (double)(1ull << (i / LATENCY_STEPS)) * (1 + (double)(i % LATENCY_STEPS) / LATENCY_STEPS);
}

/* Return: how many steps are there, from *@ret_first on; at least one. */
static unsigned find_steps(const struct stress_latency *l, unsigned *ret_first)
{
	unsigned first = 0, end = LATENCY_OCTAVES * LATENCY_STEPS;

	while (end > 1 && !l->steps[end - 1])
		end--;
	while (first < end - 1 && !l->steps[first])
		first++;
	*ret_first = first;
	return end - first;
}

/* Steps are of different width on a logarithmic axis: with the ratio of their ends gnuplot makes shares densities. */
static void write_spread(FILE *f, const struct stress_result *r)
{
	const struct stress_latency *l = &r->latency;
	double count = (double)(l->count ? l->count : 1);
	unsigned first, steps = find_steps(l, &first);
	uint64_t sum = 0;

	fputs("$spread << END\n", f);
	for (unsigned i = first; i < first + steps; i++) {
		sum += l->steps[i];
		fprintf(f, "%g %g %g %g\n", step_begin_ns(i) / 1e9, 100 * (double)l->steps[i] / count,
		        100 * (double)sum / count, step_begin_ns(i + 1) / step_begin_ns(i));
	}
	fprintf(f, "%g 0 100 2\nEND\n", step_begin_ns(first + steps) / 1e9);
}

static void write_distribution(FILE *f, const struct stress_result *r)
{
	unsigned first, steps = find_steps(&r->latency, &first);
	double p50 = (double)latency_quantile(&r->latency, 500), p99 = (double)latency_quantile(&r->latency, 990),
	       p999 = (double)latency_quantile(&r->latency, 999), end_ns = step_begin_ns(first + steps);

	fprintf(f, script_distribution, step_begin_ns(first) / 1e9, end_ns / 1e9, p50 / 1e9, p99 / 1e9, p999 / 1e9);
}

static bool has_gnuplot(void)
{
	FILE *f = popen("exec gnuplot --version 2>/dev/null", "re");
	char line[64];
	bool there;

	if (!f)
		return false;
	there = fgets(line, sizeof(line), f) != NULL;
	return pclose(f) == 0 && there;
}

int stress_plot(const struct stress_options *opts, const struct stress_result *r, const char *path)
{
	char words[200], title[400], file[1024], said[200], mean[32];
	FILE *f;
	int status;

	if (!has_gnuplot()) {
		fail("stress: --plot %s: gnuplot is not installed, or not in PATH", path);
		return -1;
	}
	/* At the first sign of trouble gnuplot ends, and its reader is gone. */
	f = popen("exec gnuplot", "we");
	if (!f) {
		fail("stress: --plot %s: gnuplot: %s", path, strerror(errno));
		return -1;
	}
	put_quoted(title, sizeof(title), stress_words(words, opts));
	put_quoted(file, sizeof(file), path);
	snprintf(said, sizeof(said), "%" PRIu64 " faults in %.0f s, %.0f a second; mean %s; %s", r->faults,
	         (double)r->elapsed_ns / 1e9, r->touch_ns ? (double)r->faults * 1e9 / (double)r->touch_ns : 0,
	         human_time(mean, r->latency.count ? (double)r->latency.sum_ns / (double)r->latency.count : 0),
	         r->failed ? "something was wrong" : "no wrong byte, no stranded waiter");
	write_over_time(f, r);
	write_spread(f, r);
	fprintf(f, script_begin, file);
	fprintf(f, script_over_time, title, said, (double)r->elapsed_ns / 1e9);
	write_distribution(f, r);
	status = pclose(f);
	if (status == 0 && access(path, R_OK) == 0)
		return 0;
	fail("stress: --plot %s: gnuplot ended with status %d", path, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	return -1;
}
