/*
 * switch_aarch64.S - switch.h for the AAPCS64
 *
 * Callee-saved are x19-x28, the frame pointer x29, the low halves of v8-v15 (d8-d15) and the FPCR; x30 is where to go
 * on. The frame a sleeping context leaves on its stack, from its stack pointer up:
 *
 *	  0 x29, x30    16 x19, x20    32 x21, x22    48 x23, x24    64 x25, x26    80 x27, x28
 *	 96 d8, d9     112 d10, d11   128 d12, d13   144 d14, d15   160 fpcr, unused
 */
	.text

/* void ctx_switch(struct ctx *from (x0), const struct ctx *to (x1)) */
	.globl	ctx_switch
	.hidden	ctx_switch
	.type	ctx_switch, %function
	.p2align 4
ctx_switch:
	.cfi_startproc
	hint	#34			/* bti c */
	stp	x29, x30, [sp, #-176]!
	.cfi_def_cfa_offset 176
	.cfi_offset x29, -176
	.cfi_offset x30, -168
	stp	x19, x20, [sp, #16]
	.cfi_offset x19, -160
	.cfi_offset x20, -152
	stp	x21, x22, [sp, #32]
	.cfi_offset x21, -144
	.cfi_offset x22, -136
	stp	x23, x24, [sp, #48]
	.cfi_offset x23, -128
	.cfi_offset x24, -120
	stp	x25, x26, [sp, #64]
	.cfi_offset x25, -112
	.cfi_offset x26, -104
	stp	x27, x28, [sp, #80]
	.cfi_offset x27, -96
	.cfi_offset x28, -88
	stp	d8, d9, [sp, #96]
	stp	d10, d11, [sp, #112]
	stp	d12, d13, [sp, #128]
	stp	d14, d15, [sp, #144]
	mrs	x9, fpcr
	str	x9, [sp, #160]

	/* Both stacks have the same frame here, so the unwind rules hold across the next lines. */
	mov	x10, sp
	str	x10, [x0]
	ldr	x10, [x1]
	mov	sp, x10

	ldr	x10, [sp, #160]
	cmp	x9, x10
	b.eq	1f
	msr	fpcr, x10
1:
	ldp	x19, x20, [sp, #16]
	ldp	x21, x22, [sp, #32]
	ldp	x23, x24, [sp, #48]
	ldp	x25, x26, [sp, #64]
	ldp	x27, x28, [sp, #80]
	ldp	d8, d9, [sp, #96]
	ldp	d10, d11, [sp, #112]
	ldp	d12, d13, [sp, #128]
	ldp	d14, d15, [sp, #144]
	ldp	x29, x30, [sp], #176
	.cfi_def_cfa_offset 0
	.cfi_restore x29
	.cfi_restore x30
	.cfi_restore x19
	.cfi_restore x20
	.cfi_restore x21
	.cfi_restore x22
	.cfi_restore x23
	.cfi_restore x24
	.cfi_restore x25
	.cfi_restore x26
	.cfi_restore x27
	.cfi_restore x28
	ret
	.cfi_endproc
	.size	ctx_switch, . - ctx_switch

/*
 * First activation: x19 is the argument, x20 the function. Nothing is below: the unwinder stops here. It looks a return
 * address up by the byte before it, so the first `ret` into this function must not go to its first byte.
 */
	.globl	ctx_start
	.hidden	ctx_start
	.type	ctx_start, %function
	.p2align 4
ctx_start:
	.cfi_startproc
	.cfi_undefined x30
	nop
.Lbegin:
	mov	x0, x19
	mov	x29, xzr
	blr	x20
	brk	#1
	.cfi_endproc
	.size	ctx_start, . - ctx_start

/* void ctx_init(struct ctx *ctx (x0), void *stack (x1), size_t bytes (x2), ctx_entry_fn *entry (x3), void *arg (x4)) */
	.globl	ctx_init
	.hidden	ctx_init
	.type	ctx_init, %function
	.p2align 4
ctx_init:
	.cfi_startproc
	hint	#34			/* bti c */
	add	x9, x1, x2
	and	x9, x9, #-16
	sub	x9, x9, #176
	adrp	x10, .Lbegin
	add	x10, x10, :lo12:.Lbegin
	stp	xzr, x10, [x9]
	stp	x4, x3, [x9, #16]
	stp	xzr, xzr, [x9, #32]
	stp	xzr, xzr, [x9, #48]
	stp	xzr, xzr, [x9, #64]
	stp	xzr, xzr, [x9, #80]
	stp	xzr, xzr, [x9, #96]
	stp	xzr, xzr, [x9, #112]
	stp	xzr, xzr, [x9, #128]
	stp	xzr, xzr, [x9, #144]
	mrs	x10, fpcr
	stp	x10, xzr, [x9, #160]
	str	x9, [x0]
	ret
	.cfi_endproc
	.size	ctx_init, . - ctx_init

	.globl	ctx_fini
	.hidden	ctx_fini
	.type	ctx_fini, %function
ctx_fini:
	.cfi_startproc
	hint	#34			/* bti c */
	ret
	.cfi_endproc
	.size	ctx_fini, . - ctx_fini

	.section .note.GNU-stack, "", %progbits
