/*
 * What the operating system should know of this PC and cannot find out: PCI windows and interrupt routing, the ISA devices, sleep
 * state S5, the power button. Compiled by iasl when Trine is built. What depends on the command line (PCI windows, processors, serial
 * ports) is in an SSDT made when it starts, vmm/machine/acpi.c; it is reached through the External names.
 */
DefinitionBlock ("dsdt.aml", "DSDT", 2, "TRINE ", "TRINEPC ", 1)
{
    External (\P32B, IntObj)    // PCI memory below 4 GiB: first and last address
    External (\P32E, IntObj)
    External (\P64B, IntObj)    // above 4 GiB; base 0: none
    External (\P64E, IntObj)
    External (\COMS, IntObj)    // bit n: serial port n + 1 is there

    Name (PICF, Zero)           // 1: the I/O APIC is in use

    Method (\_PIC, 1)
    {
        PICF = Arg0
    }

    Name (\_S5, Package () { 0, 0, 0, 0 })

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08"))
            Name (_CID, EisaId ("PNP0A03"))
            Name (_SEG, 0)
            Name (_BBN, 0)
            Name (_UID, 0)
            Name (SUPP, 0)
            Name (CTRL, 0)

            Name (CRES, ResourceTemplate ()
            {
                WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0xff, 0, 0x100)
                IO (Decode16, 0x0cf8, 0x0cf8, 1, 8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0, 0x0cf7, 0, 0x0cf8)
                WordIO (ResourceProducer, MinFixed, MaxFixed, PosDecode, EntireRange, 0, 0x0d00, 0xffff, 0, 0xf300)
                DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
                    0, 0xc0000000, 0xfdffffff, 0, 0x3e000000, , , LOWM)
            })
            Name (CR64, ResourceTemplate ()
            {
                QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, Cacheable, ReadWrite,
                    0, 0x100000000, 0x1ffffffff, 0, 0x100000000, , , HIGM)
            })

            Method (_CRS, 0, Serialized)
            {
                CreateDWordField (CRES, ^LOWM._MIN, MIN3)
                CreateDWordField (CRES, ^LOWM._MAX, MAX3)
                CreateDWordField (CRES, ^LOWM._LEN, LEN3)
                MIN3 = \P32B
                MAX3 = \P32E
                LEN3 = MAX3 - MIN3 + 1
                If (\P64B == 0)
                {
                    Return (CRES)
                }
                CreateQWordField (CR64, ^HIGM._MIN, MIN6)
                CreateQWordField (CR64, ^HIGM._MAX, MAX6)
                CreateQWordField (CR64, ^HIGM._LEN, LEN6)
                MIN6 = \P64B
                MAX6 = \P64E
                LEN6 = MAX6 - MIN6 + 1
                Return (ConcatenateResTemplate (CRES, CR64))
            }

            // The system may have what it asks for but for what is not there: hot plug, and power management events.
            Method (_OSC, 4, Serialized)
            {
                CreateDWordField (Arg3, 0, CDW1)
                If (Arg0 == ToUUID ("33db4d5b-1ff7-401c-9657-7441c03dd766"))
                {
                    CreateDWordField (Arg3, 4, CDW2)
                    CreateDWordField (Arg3, 8, CDW3)
                    SUPP = CDW2
                    CTRL = CDW3 & 0x1c
                    If (Arg1 != 1)
                    {
                        CDW1 |= 0x08
                    }
                    If (CDW3 != CTRL)
                    {
                        CDW1 |= 0x10
                    }
                    CDW3 = CTRL
                }
                Else
                {
                    CDW1 |= 0x04
                }
                Return (Arg3)
            }

            // Pin p of slot s is wire (s + p) % 8: a GSI of the I/O APIC, or a link to the PICs.
            Method (_PRT, 0, Serialized)
            {
                Local0 = Package (128) {}
                Local1 = 0
                While (Local1 < 128)
                {
                    Local2 = Local1 >> 2
                    Local3 = (Local2 + (Local1 & 3)) & 7
                    If (PICF)
                    {
                        If (Local3 == 0) { Local4 = Package (4) { 0, 0, GSIA, 0 } }
                        If (Local3 == 1) { Local4 = Package (4) { 0, 0, GSIB, 0 } }
                        If (Local3 == 2) { Local4 = Package (4) { 0, 0, GSIC, 0 } }
                        If (Local3 == 3) { Local4 = Package (4) { 0, 0, GSID, 0 } }
                        If (Local3 == 4) { Local4 = Package (4) { 0, 0, GSIE, 0 } }
                        If (Local3 == 5) { Local4 = Package (4) { 0, 0, GSIF, 0 } }
                        If (Local3 == 6) { Local4 = Package (4) { 0, 0, GSIG, 0 } }
                        If (Local3 == 7) { Local4 = Package (4) { 0, 0, GSIH, 0 } }
                    }
                    Else
                    {
                        If (Local3 == 0) { Local4 = Package (4) { 0, 0, LNKA, 0 } }
                        If (Local3 == 1) { Local4 = Package (4) { 0, 0, LNKB, 0 } }
                        If (Local3 == 2) { Local4 = Package (4) { 0, 0, LNKC, 0 } }
                        If (Local3 == 3) { Local4 = Package (4) { 0, 0, LNKD, 0 } }
                        If (Local3 == 4) { Local4 = Package (4) { 0, 0, LNKE, 0 } }
                        If (Local3 == 5) { Local4 = Package (4) { 0, 0, LNKF, 0 } }
                        If (Local3 == 6) { Local4 = Package (4) { 0, 0, LNKG, 0 } }
                        If (Local3 == 7) { Local4 = Package (4) { 0, 0, LNKH, 0 } }
                    }
                    Local4 [0] = (Local2 << 16) | 0xffff
                    Local4 [1] = Local1 & 3
                    Local0 [Local1] = Local4
                    Local1++
                }
                Return (Local0)
            }

            Device (ISA)
            {
                Name (_ADR, 0x001f0000)
                OperationRegion (PIRQ, PCI_Config, 0x60, 0x0c)
                Field (PIRQ, ByteAcc, NoLock, Preserve)
                {
                    PRQA, 8, PRQB, 8, PRQC, 8, PRQD, 8,
                    Offset (0x08),
                    PRQE, 8, PRQF, 8, PRQG, 8, PRQH, 8
                }

                Device (RTC)
                {
                    Name (_HID, EisaId ("PNP0B00"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x70, 0x70, 1, 8)
                        IRQNoFlags () { 8 }
                    })
                }

                Device (KBD)
                {
                    Name (_HID, EisaId ("PNP0303"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x60, 0x60, 1, 1)
                        IO (Decode16, 0x64, 0x64, 1, 1)
                        IRQNoFlags () { 1 }
                    })
                }

                Device (MOU)
                {
                    Name (_HID, EisaId ("PNP0F13"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IRQNoFlags () { 12 }
                    })
                }

                Device (COM1)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 1)
                    Method (_STA) { If (\COMS & (1 << (0))) { Return (0x0f) } Return (0) }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x3f8, 0x3f8, 1, 8)
                        IRQNoFlags () { 4 }
                    })
                }

                Device (COM2)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 2)
                    Method (_STA) { If (\COMS & (1 << (1))) { Return (0x0f) } Return (0) }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x2f8, 0x2f8, 1, 8)
                        IRQNoFlags () { 3 }
                    })
                }

                Device (COM3)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 3)
                    Method (_STA) { If (\COMS & (1 << (2))) { Return (0x0f) } Return (0) }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x3e8, 0x3e8, 1, 8)
                        IRQNoFlags () { 4 }
                    })
                }

                Device (COM4)
                {
                    Name (_HID, EisaId ("PNP0501"))
                    Name (_UID, 4)
                    Method (_STA) { If (\COMS & (1 << (3))) { Return (0x0f) } Return (0) }
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x2e8, 0x2e8, 1, 8)
                        IRQNoFlags () { 3 }
                    })
                }


                // The configuration interface, ports 0x510 to 0x51b.
                Device (FWCF)
                {
                    Name (_HID, "QEMU0002")
                    Name (_STA, 0x0b)
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x510, 0x510, 1, 0x0c)
                    })
                }

                // Ports that belong to no device of their own: ACPI registers, the debug ports.
                Device (SYSR)
                {
                    Name (_HID, EisaId ("PNP0C02"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x92, 0x92, 1, 1)
                        IO (Decode16, 0x600, 0x600, 1, 0x80)
                    })
                }
            }

            Device (GSIA)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 16)
                Name (_PRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 16 } })
                Name (_CRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 16 } })
                Method (_SRS, 1) {}
            }

            Device (GSIB)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 17)
                Name (_PRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 17 } })
                Name (_CRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 17 } })
                Method (_SRS, 1) {}
            }

            Device (GSIC)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 18)
                Name (_PRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 18 } })
                Name (_CRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 18 } })
                Method (_SRS, 1) {}
            }

            Device (GSID)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 19)
                Name (_PRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 19 } })
                Name (_CRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 19 } })
                Method (_SRS, 1) {}
            }

            Device (GSIE)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 20)
                Name (_PRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 20 } })
                Name (_CRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 20 } })
                Method (_SRS, 1) {}
            }

            Device (GSIF)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 21)
                Name (_PRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 21 } })
                Name (_CRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 21 } })
                Method (_SRS, 1) {}
            }

            Device (GSIG)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 22)
                Name (_PRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 22 } })
                Name (_CRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 22 } })
                Method (_SRS, 1) {}
            }

            Device (GSIH)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 23)
                Name (_PRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 23 } })
                Name (_CRS, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 23 } })
                Method (_SRS, 1) {}
            }


            // A PIRQ register holds the ISA interrupt in its low four bits; bit 7 disconnects it.
            Name (LPRS, ResourceTemplate () { IRQ (Level, ActiveLow, Shared) { 5, 10, 11 } })
            Method (LCRS, 1, Serialized)
            {
                Name (BUF, ResourceTemplate () { Interrupt (ResourceConsumer, Level, ActiveLow, Shared) { 0 } })
                CreateDWordField (BUF, 5, INTR)
                If (Arg0 < 0x80)
                {
                    INTR = Arg0
                }
                Return (BUF)
            }
            Method (LSTA, 1)
            {
                If (Arg0 & 0x80)
                {
                    Return (0x09)
                }
                Return (0x0b)
            }
            Method (LSRS, 1)
            {
                CreateWordField (Arg0, 1, MASK)
                FindSetRightBit (MASK, Local0)
                Return (Local0 - 1)
            }

            Device (LNKA)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 0)
                Method (_STA) { Return (LSTA (^^ISA.PRQA)) }
                Method (_DIS) { ^^ISA.PRQA |= 0x80 }
                Method (_PRS) { Return (LPRS) }
                Method (_CRS) { Return (LCRS (^^ISA.PRQA)) }
                Method (_SRS, 1) { ^^ISA.PRQA = LSRS (Arg0) }
            }

            Device (LNKB)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 1)
                Method (_STA) { Return (LSTA (^^ISA.PRQB)) }
                Method (_DIS) { ^^ISA.PRQB |= 0x80 }
                Method (_PRS) { Return (LPRS) }
                Method (_CRS) { Return (LCRS (^^ISA.PRQB)) }
                Method (_SRS, 1) { ^^ISA.PRQB = LSRS (Arg0) }
            }

            Device (LNKC)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 2)
                Method (_STA) { Return (LSTA (^^ISA.PRQC)) }
                Method (_DIS) { ^^ISA.PRQC |= 0x80 }
                Method (_PRS) { Return (LPRS) }
                Method (_CRS) { Return (LCRS (^^ISA.PRQC)) }
                Method (_SRS, 1) { ^^ISA.PRQC = LSRS (Arg0) }
            }

            Device (LNKD)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 3)
                Method (_STA) { Return (LSTA (^^ISA.PRQD)) }
                Method (_DIS) { ^^ISA.PRQD |= 0x80 }
                Method (_PRS) { Return (LPRS) }
                Method (_CRS) { Return (LCRS (^^ISA.PRQD)) }
                Method (_SRS, 1) { ^^ISA.PRQD = LSRS (Arg0) }
            }

            Device (LNKE)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 4)
                Method (_STA) { Return (LSTA (^^ISA.PRQE)) }
                Method (_DIS) { ^^ISA.PRQE |= 0x80 }
                Method (_PRS) { Return (LPRS) }
                Method (_CRS) { Return (LCRS (^^ISA.PRQE)) }
                Method (_SRS, 1) { ^^ISA.PRQE = LSRS (Arg0) }
            }

            Device (LNKF)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 5)
                Method (_STA) { Return (LSTA (^^ISA.PRQF)) }
                Method (_DIS) { ^^ISA.PRQF |= 0x80 }
                Method (_PRS) { Return (LPRS) }
                Method (_CRS) { Return (LCRS (^^ISA.PRQF)) }
                Method (_SRS, 1) { ^^ISA.PRQF = LSRS (Arg0) }
            }

            Device (LNKG)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 6)
                Method (_STA) { Return (LSTA (^^ISA.PRQG)) }
                Method (_DIS) { ^^ISA.PRQG |= 0x80 }
                Method (_PRS) { Return (LPRS) }
                Method (_CRS) { Return (LCRS (^^ISA.PRQG)) }
                Method (_SRS, 1) { ^^ISA.PRQG = LSRS (Arg0) }
            }

            Device (LNKH)
            {
                Name (_HID, EisaId ("PNP0C0F"))
                Name (_UID, 7)
                Method (_STA) { Return (LSTA (^^ISA.PRQH)) }
                Method (_DIS) { ^^ISA.PRQH |= 0x80 }
                Method (_PRS) { Return (LPRS) }
                Method (_CRS) { Return (LCRS (^^ISA.PRQH)) }
                Method (_SRS, 1) { ^^ISA.PRQH = LSRS (Arg0) }
            }

        }

        // The window through which PCI configuration space is memory; the kernel wants it reserved here as well.
        Device (ECAM)
        {
            Name (_HID, EisaId ("PNP0C02"))
            Name (_UID, 1)
            Name (_CRS, ResourceTemplate ()
            {
                Memory32Fixed (ReadWrite, 0xb0000000, 0x10000000)
            })
        }
    }
}
