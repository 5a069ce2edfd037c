/*
 * kvm.h - a guest of ours whose vCPUs do the touching
 *
 * It has one page of code for each vCPU, in 32-bit protected mode without paging: what it touches faults in the kernel,
 * inside KVM. It accesses one word of a page, says so, copies the page to a page of its own when it is asked to, and
 * says that.
 */
#ifndef PROGRAMS_STRESS_KVM_H
#define PROGRAMS_STRESS_KVM_H

#include <stdbool.h>
#include <stdint.h>

struct sblock;
struct stress;
struct vcpu;

/** kvm_can - whether there can be a guest of ours on this machine, or why not */
bool kvm_can(char ret_why[static 200]);

/** kvm_make - a machine whose memory the steady blocks are. Return: 0, or the errno after saying why */
int kvm_make(struct stress *s);
void kvm_free(struct stress *s);

/** vcpu_make - the toucher's of that number; called on the thread that will run it. NULL after check_failed */
struct vcpu *vcpu_make(struct stress *s, unsigned index);
void vcpu_free(struct vcpu *v);

/**
 * vcpu_touch - the guest accesses a place in a page of a steady block
 * @mark: 0: it reads; else it exchanges what is there for this
 * @ret_ns: how long KVM_RUN took. Return: false after check_failed, when KVM says no.
 */
bool vcpu_touch(struct vcpu *v, const struct sblock *sb, uint32_t page, unsigned place, uint32_t mark,
                uint32_t *ret_found, uint64_t *ret_ns);

/** vcpu_copy - the page as the guest has read it, right after a touch; NULL after check_failed */
const uint64_t *vcpu_copy(struct vcpu *v, const struct sblock *sb, uint32_t page);

#endif
