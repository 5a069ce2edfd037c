#include "programs/stress/kvm.h"

#include "base/clock.h"
#include "programs/cli/complain.h"
#include "programs/stress/block.h"
#include "programs/stress/check.h"
#include "programs/stress/options.h"
#include "programs/stress/stress.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__x86_64__)

#include <linux/kvm.h>

#define CODE_PAGES (2u * TOUCHERS_MAX) /* of each vCPU: its code and mail, and where it copies to */
#define RAM_GPA 0x10000000ull          /* the steady blocks, from here on; below 4 GiB */
#define GPA_END 0xf0000000ull
#define PORT 0x10

/* At the end of a vCPU's first page. */
struct mail {
	uint32_t word_gpa; /* to be accessed */
	uint32_t mark;     /* 0: read it; else exchange it for this */
	uint32_t found;    /* what was there */
	uint32_t page_gpa; /* to be copied; 0: none */
	uint32_t to_gpa;
};

#define MAIL_OFF 0x800u

/*
 * ebx: the mail. Once round the loop for each KVM_RUN; out leaves to us.
 *
 *	1: mov esi, [ebx]        word_gpa
 *	   mov eax, [ebx + 4]    mark
 *	   test eax, eax
 *	   jz 2f
 *	   xchg [esi], eax
 *	   jmp 3f
 *	2: mov eax, [esi]
 *	3: mov [ebx + 8], eax
 *	   out PORT, al
 *	   mov esi, [ebx + 12]   page_gpa
 *	   test esi, esi
 *	   jz 1b
 *	   mov edi, [ebx + 16]   to_gpa
 *	   mov ecx, 1024
 *	   cld
 *	   rep movsd
 *	   out PORT, al
 *	   jmp 1b
 */
static const uint8_t code[] = {
	0x8b, 0x33,                   /* 1: mov esi, [ebx] */
	0x8b, 0x43, 0x04,             /* mov eax, [ebx + 4] */
	0x85, 0xc0,                   /* test eax, eax */
	0x74, 0x04,                   /* jz 2f */
	0x87, 0x06,                   /* xchg [esi], eax */
	0xeb, 0x02,                   /* jmp 3f */
	0x8b, 0x06,                   /* 2: mov eax, [esi] */
	0x89, 0x43, 0x08,             /* 3: mov [ebx + 8], eax */
	0xe6, PORT,                   /* out PORT, al */
	0x8b, 0x73, 0x0c,             /* mov esi, [ebx + 12] */
	0x85, 0xf6,                   /* test esi, esi */
	0x74, 0xe5,                   /* jz 1b */
	0x8b, 0x7b, 0x10,             /* mov edi, [ebx + 16] */
	0xb9, 0x00, 0x04, 0x00, 0x00, /* mov ecx, 1024 */
	0xfc,                         /* cld */
	0xf3, 0xa5,                   /* rep movsd */
	0xe6, PORT,                   /* out PORT, al */
	0xeb, 0xd6,                   /* jmp 1b */
};

struct vcpu {
	struct stress *s;
	int fd;
	struct kvm_run *run; /* owned, a mapping */
	size_t run_bytes;
	struct mail *mail;
	uint8_t *copy;
	uint32_t copy_gpa;
	bool failed;
};

static int set_memory(struct stress *s, uint32_t slot, uint64_t gpa, void *at, uint64_t bytes)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .guest_phys_addr = gpa, .memory_size = bytes, .userspace_addr = (uintptr_t)at
	};

	return ioctl(s->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0 ? -errno : 0;
}

static int set_all_memory(struct stress *s)
{
	uint64_t gpa = RAM_GPA, bytes;
	int r = set_memory(s, 0, 0, s->code, CODE_PAGES * TPAGE_BYTES);

	for (unsigned i = 0; r == 0 && i < s->block_count; i++) {
		struct sblock *sb = &s->blocks[i];

		bytes = (uint64_t)sb->pages * TPAGE_BYTES;
		if (sb->role != ROLE_STEADY)
			continue;
		if (bytes > GPA_END - gpa)
			return -EFBIG;
		sb->gpa = gpa;
		r = set_memory(s, i + 1, gpa, atomic_load(&sb->guest), bytes);
		gpa += (bytes + (2u << 20) - 1) & ~((2ull << 20) - 1);
	}
	return r;
}

/* What can be opened may still refuse a guest, in some containers for one. */
bool kvm_can(char ret_why[static 200])
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = fd >= 0 ? ioctl(fd, KVM_CREATE_VM, 0) : -1;

	if (vm < 0)
		snprintf(ret_why, 200, "/dev/kvm: %s", strerror(errno));
	else
		close(vm);
	if (fd >= 0)
		close(fd);
	return vm >= 0;
}

int kvm_make(struct stress *s)
{
	int r = 0;

	s->code = mmap(NULL, CODE_PAGES * TPAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (s->code == MAP_FAILED) {
		s->code = NULL;
		r = -ENOMEM;
	}
	s->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	s->vm_fd = s->kvm_fd >= 0 ? ioctl(s->kvm_fd, KVM_CREATE_VM, 0) : -1;
	if (r == 0 && s->vm_fd < 0)
		r = -errno;
	/* Intel's processors run real mode in a page of the machine's. */
	if (r == 0)
		ioctl(s->vm_fd, KVM_SET_TSS_ADDR, 0xfffbd000ul);
	if (r == 0)
		r = set_all_memory(s);
	if (r < 0)
		fail("stress: --kvm: %s", r == -EFBIG ? "the memory does not fit below 4 GiB" : strerror(-r));
	return r;
}

void kvm_free(struct stress *s)
{
	if (s->vm_fd >= 0)
		close(s->vm_fd);
	if (s->kvm_fd >= 0)
		close(s->kvm_fd);
	if (s->code)
		munmap(s->code, CODE_PAGES * TPAGE_BYTES);
}

/* Flat segments of 4 GiB, protected mode, no paging. */
static int set_registers(struct vcpu *v, uint32_t code_gpa)
{
	struct kvm_segment flat = {
		.limit = 0xffffffff, .selector = 0x10, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1
	};
	struct kvm_regs regs = { .rip = code_gpa, .rbx = code_gpa + MAIL_OFF, .rflags = 2 };
	struct kvm_sregs sregs;

	if (ioctl(v->fd, KVM_GET_SREGS, &sregs) < 0)
		return -errno;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat;
	flat.selector = 0x8;
	flat.type = 11;
	sregs.cs = flat;
	sregs.cr0 |= 1;
	if (ioctl(v->fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(v->fd, KVM_SET_REGS, &regs) < 0)
		return -errno;
	return 0;
}

static int vcpu_start(struct vcpu *v, unsigned index)
{
	struct stress *s = v->s;
	uint32_t code_gpa = 2 * index * TPAGE_BYTES;
	int bytes = ioctl(s->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

	v->fd = ioctl(s->vm_fd, KVM_CREATE_VCPU, index);
	if (v->fd < 0 || bytes < 0)
		return -errno;
	v->run_bytes = (size_t)bytes;
	v->run = mmap(NULL, v->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		v->run = NULL;
		return -errno;
	}
	memcpy(s->code + code_gpa, code, sizeof(code));
	v->mail = (struct mail *)(void *)(s->code + code_gpa + MAIL_OFF);
	v->copy_gpa = code_gpa + TPAGE_BYTES;
	v->copy = s->code + v->copy_gpa;
	return set_registers(v, code_gpa);
}

struct vcpu *vcpu_make(struct stress *s, unsigned index)
{
	struct vcpu *v = calloc(1, sizeof(*v));
	int r = -ENOMEM;

	if (v) {
		*v = (struct vcpu){ .s = s, .fd = -1 };
		r = vcpu_start(v, index);
	}
	if (r == 0)
		return v;
	check_failed(s, "vCPU %u cannot be made: %s", index, strerror(-r));
	vcpu_free(v);
	return NULL;
}

void vcpu_free(struct vcpu *v)
{
	if (!v)
		return;
	if (v->run)
		munmap(v->run, v->run_bytes);
	if (v->fd >= 0)
		close(v->fd);
	free(v);
}

/* Until the guest says that it is through. */
static bool run(struct vcpu *v)
{
	int r;

	if (v->failed)
		return false;
	do
		r = ioctl(v->fd, KVM_RUN, 0);
	while (r < 0 && errno == EINTR);
	if (r == 0 && v->run->exit_reason == KVM_EXIT_IO && v->run->io.port == PORT)
		return true;
	v->failed = true;
	check_failed(v->s, "KVM_RUN: %s, exit reason %u", r < 0 ? strerror(errno) : "no error", v->run->exit_reason);
	return false;
}

bool vcpu_touch(struct vcpu *v, const struct sblock *sb, uint32_t page, unsigned place, uint32_t mark,
                uint32_t *ret_found, uint64_t *ret_ns)
{
	uint64_t begin_ns;
	bool ok;

	*v->mail = (struct mail){ .word_gpa = (uint32_t)(sb->gpa + (uint64_t)page * TPAGE_BYTES + 4ul * place),
		                  .mark = mark };
	begin_ns = clock_now_ns();
	ok = run(v);
	*ret_ns = clock_now_ns() - begin_ns;
	*ret_found = v->mail->found;
	return ok;
}

const uint64_t *vcpu_copy(struct vcpu *v, const struct sblock *sb, uint32_t page)
{
	uint64_t gpa = sb->gpa + (uint64_t)page * TPAGE_BYTES;

	/* After the first out it goes on here, whatever the word was. */
	v->mail->page_gpa = (uint32_t)gpa;
	v->mail->to_gpa = v->copy_gpa;
	return run(v) ? (const uint64_t *)(const void *)v->copy : NULL;
}

#else

bool kvm_can(char ret_why[static 200])
{
	snprintf(ret_why, 200, "the guest is made for x86");
	return false;
}

int kvm_make(struct stress *s)
{
	(void)s;
	return -ENOTSUP; /* stress_can has said so */
}

void kvm_free(struct stress *s)
{
	(void)s;
}

struct vcpu *vcpu_make(struct stress *s, unsigned index)
{
	(void)s;
	(void)index;
	return NULL;
}

void vcpu_free(struct vcpu *v)
{
	(void)v;
}

bool vcpu_touch(struct vcpu *v, const struct sblock *sb, uint32_t page, unsigned place, uint32_t mark,
                uint32_t *ret_found, uint64_t *ret_ns)
{
	(void)v, (void)sb, (void)page, (void)place, (void)mark;
	*ret_found = 0;
	*ret_ns = 0;
	return false;
}

const uint64_t *vcpu_copy(struct vcpu *v, const struct sblock *sb, uint32_t page)
{
	(void)v, (void)sb, (void)page;
	return NULL;
}

#endif
