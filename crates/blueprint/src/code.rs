//! The stable codes of diagnostics. A code never changes its meaning and is never used again.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What is wrong, for machines and for searching.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its text form, such as `P0105`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Whether it is about a text that is no YAML, or none that a blueprint may use: the first hundred are.
            #[must_use]
            pub fn is_about_reading(self) -> bool {
                self.as_str() < "P0100"
            }
        }
    };
}

codes! {
    /// A file is larger than the limit.
    FileTooLarge = "P0001",
    /// A file is not UTF-8.
    NotUtf8 = "P0002",
    /// A file holds a character that no text file should.
    ControlCharacter = "P0003",
    /// Not YAML.
    Syntax = "P0004",
    /// Nested too deep.
    TooDeep = "P0005",
    /// Aliases multiply the document beyond the limit, or refer to themselves.
    AliasBomb = "P0006",
    /// The same key twice in one mapping.
    DuplicateKey = "P0007",
    /// A YAML tag.
    Tag = "P0008",
    /// A mapping or a list as a key.
    KeyNotText = "P0009",
    /// `<<` with something that is no mapping.
    BadMerge = "P0010",
    /// A document that is no mapping.
    NotAMapping = "P0011",
    /// `kind` is missing.
    KindMissing = "P0101",
    /// No such kind.
    UnknownKind = "P0102",
    /// No longer given: a kind of the language that an older version did not read.
    KindWithoutDriver = "P0103",
    /// A value of the wrong type.
    WrongType = "P0104",
    /// No such key.
    UnknownKey = "P0105",
    /// A key is missing.
    MissingKey = "P0106",
    /// No longer given: a key of the language that an older version did not read.
    KeyWithoutDriver = "P0107",
    /// None of the allowed values.
    BadChoice = "P0108",
    /// A number or a length outside its range.
    OutOfRange = "P0109",
    /// Otherwise against the schema.
    AgainstSchema = "P0110",
    /// Not a name.
    BadName = "P0201",
    /// Not a duration.
    BadDuration = "P0202",
    /// Not a size.
    BadSize = "P0203",
    /// Not an acceptable path.
    BadPath = "P0204",
    /// Not the name of an environment variable.
    BadEnvName = "P0205",
    /// Not the name of a user or group.
    BadUser = "P0206",
    /// Not a file mode.
    BadMode = "P0207",
    /// Neither an address nor a host name.
    BadHost = "P0208",
    /// Not a price.
    BadPrice = "P0209",
    /// Not the path of a health check.
    BadHealthPath = "P0210",
    /// Not a range of status codes.
    BadStatusCodes = "P0211",
    /// A command without a word.
    EmptyCommand = "P0212",
    /// A text that the operating system cannot take.
    BadText = "P0213",
    /// Not a label.
    BadLabel = "P0214",
    /// Not a schedule.
    BadSchedule = "P0215",
    /// Not a time zone.
    BadTimeZone = "P0216",
    /// Not a git URL that may be used.
    BadGitUrl = "P0217",
    /// Not the name of a branch or tag, or the id of a commit.
    BadGitRef = "P0218",
    /// Not the reference of a container image.
    BadImage = "P0219",
    /// Neither or both of two keys of which exactly one must stand.
    ExactlyOne = "P0220",
    /// Several processes, and no saying whose this is.
    WhichProcess = "P0221",
    /// A health check of a port that does not exist.
    UnknownHealthPort = "P0222",
    /// Several ports, and no saying which one is meant.
    WhichPort = "P0223",
    /// A port's name twice in one app.
    DuplicatePort = "P0224",
    /// A variable that Plumb sets itself.
    ReservedVariable = "P0225",
    /// A folder inside a source that does not exist.
    DirWithoutSource = "P0226",
    /// A key that goes with another kind of workload.
    KeyOutOfPlace = "P0227",
    /// A credential where the name of a secret belongs.
    LiteralCredential = "P0228",
    /// Not a host or path of a route.
    BadRoute = "P0229",
    /// Not a runtime or engine with a version.
    BadVersion = "P0230",
    /// Not the name of a package.
    BadPackage = "P0231",
    /// Not an address range.
    BadSubnet = "P0232",
    /// One variable from two sources.
    VariableClash = "P0233",
    /// A route that leads to no port.
    RouteWithoutPort = "P0234",
    /// Not a reference.
    BadReference = "P0301",
    /// No such variable of the workspace.
    UnknownVar = "P0302",
    /// A reference to something that does not exist.
    UnknownReference = "P0303",
    /// A reference that does not work in this place.
    ReferenceOutOfPlace = "P0304",
    /// A selected machine lacks what is referred to.
    MachineLacks = "P0305",
    /// No Workspace.
    NoManifest = "P0401",
    /// A name twice.
    DuplicateName = "P0402",
    /// No such machine.
    UnknownMachine = "P0403",
    /// No machine has these labels.
    NothingSelected = "P0404",
    /// A port claimed twice on one machine.
    PortClash = "P0405",
    /// A path claimed twice on one machine.
    PathClash = "P0406",
    /// No overlay of that name.
    UnknownOverlay = "P0407",
    /// An overlay that no `--env` can choose, or something else in an overlay's file.
    OverlayOutOfPlace = "P0408",
    /// A host and path claimed twice on one machine.
    RouteClash = "P0409",
    /// Two registries of one host.
    RegistryClash = "P0410",
    /// A service that would be on several machines.
    NotOneMachine = "P0411",
    /// A former name that still has, or had, another owner.
    FormerNameTaken = "P0412",
    /// A source that is not there, or that cannot be packed.
    UnusableSource = "P0413",
    /// A command uses `PORT` where it is not set.
    PortNotSet = "P0501",
    /// Something that looks like a credential, in an environment or a command.
    LikelyCredential = "P0502",
    /// A Compose file that is no project.
    ComposeShape = "P0601",
    /// A key of a Compose file that is not honoured, or that there is not.
    ComposeKey = "P0602",
    /// A value in a Compose file that cannot be taken.
    ComposeValue = "P0603",
    /// Services of a Compose file that wait for one another.
    ComposeCycle = "P0604",
    /// A Compose file that is not there.
    ComposeMissing = "P0605",
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn codes_are_unique_and_ascending() {
        assert!(
            Code::ALL
                .windows(2)
                .all(|pair| pair[0].as_str() < pair[1].as_str())
        );
    }
}
